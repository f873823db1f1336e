"""The studies in docs/: `python -m studies.toybirds`, `python -m studies.cub`, and the scripts for their pages."""
