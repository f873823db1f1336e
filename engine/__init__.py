"""A run under way: its processes, its training or evaluation, and how it goes on after a stop."""
