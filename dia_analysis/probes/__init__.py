"""Probe points: where attention maps are in a network, and capturing them."""
