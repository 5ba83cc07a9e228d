"""What folding static gates saves, and what it costs."""
