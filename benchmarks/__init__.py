"""Promises on speed, measured side by side in one process."""
