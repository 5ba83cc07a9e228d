"""Whether a network's attention matters: its maps replaced while it runs."""
