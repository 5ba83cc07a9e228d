"""Classifiers: how they are trained and evaluated."""
