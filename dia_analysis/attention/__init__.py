"""Look at attention maps: over the image, by layer and head, and rolled out through the layers."""
