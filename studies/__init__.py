"""The studies in docs/: `python -m studies.toybirds` and `python -m studies.cub`, and the scripts that fill their
pages."""
