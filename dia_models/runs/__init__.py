"""Training runs, from configuration to result."""
