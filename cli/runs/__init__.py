"""Commands that train, evaluate and list networks."""
