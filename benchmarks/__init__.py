"""What is timed: `python benchmarks/run.py --help`."""
