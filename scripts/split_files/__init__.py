"""Modules of make_metadata.py: one per data set, and shared reading."""
