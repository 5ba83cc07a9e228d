"""Our parameter counts beside the published ones."""
