from . import images, inputs, networks

__all__ = ["images", "inputs", "networks"]
