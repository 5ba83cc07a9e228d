"""The networks that attention modules are put into."""
