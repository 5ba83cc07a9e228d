"""Parameters, operations and time (section VI-B1)."""
