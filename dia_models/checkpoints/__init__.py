"""Networks on disk: our own files, and weights that others published."""
