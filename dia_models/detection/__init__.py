"""Detectors: how they are trained and scored."""
