"""Chest X-rays: regions of the image, and classifiers of two classes."""
