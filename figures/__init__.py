"""Draw results: one file per figure of the paper. Nothing here knows a network."""

import lazy_loader

# The names are in __init__.pyi. Each is imported when it is first used, since torch alone takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
