"""What the paper prints, what it claims, and what runs and analyses say about it."""
