"""The parts of make_metadata.py: what the official files of each data set say, and the reading that they share."""
