"""One module an analysis: open networks and data, call the library, print."""
