"""Images, what is known of them, and the names of their classes."""
