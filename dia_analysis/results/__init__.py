"""What every result is: numbers with names, a picture, a folder, and where they come from."""
