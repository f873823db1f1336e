"""What check_data.py finds wrong, a module a kind of data."""
