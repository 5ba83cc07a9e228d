"""The commands dia-analyze and dia-train: parse, one call, print."""
