"""Statistics on arrays and tensors: no network, no path, no axes."""
