"""Images, their ground truth, and class names."""
