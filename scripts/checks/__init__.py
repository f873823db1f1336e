"""Checks of check_data.py, one module per kind of data."""
