"""The studies of docs/: `python -m studies.toybirds` and `python -m studies.cub`, and what fills their pages."""
