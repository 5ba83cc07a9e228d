"""Captured records on disk."""
