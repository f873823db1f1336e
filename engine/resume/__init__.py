"""Resuming: which commands are the same, locks on results, finished shards."""
