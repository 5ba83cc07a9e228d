"""What several tests use: data, networks, commands, and what is read of a page."""
