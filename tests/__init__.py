"""Tests, in the folders of what they test; what several of them use is in `support`."""
