"""A running command: its processes, its training or evaluation, and how it resumes after a stop."""
