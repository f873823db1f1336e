"""Modules of make_toybirds.py: classes (looks); shapes, scene, painting and render (a picture); layout (files)."""
