"""Class activation maps: what a network looks at."""
