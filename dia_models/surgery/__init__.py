"""Trained networks changed: attention attached, shared, found."""
