"""Whether a heatmap can be trusted."""
