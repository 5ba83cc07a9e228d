"""Images with objects."""
