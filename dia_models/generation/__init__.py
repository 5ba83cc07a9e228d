"""Diffusion models: how they are trained, sampled and scored."""
