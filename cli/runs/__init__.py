"""Commands that train, evaluate and list networks."""

import lazy_loader

# Each module is imported when a command first uses it, since most take seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
