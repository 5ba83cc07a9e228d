"""ImageNet's own names of its classes, such as n01440764."""

import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

SYNSET = re.compile(r"n\d{8}")


def are_synsets(names: Iterable[str]) -> bool:
    """Whether all names are of ImageNet's form."""
    return all(SYNSET.fullmatch(name) for name in names)


@cache
def imagenet_synsets() -> tuple[str, ...] | None:
    """Those of the 1,000 classes in the order in which networks count them, as timm lists them; None without timm."""
    if find_spec("timm") is None:
        return None
    listed: Any = import_module("timm.data")
    return tuple(listed.ImageNetInfo("imagenet-1k").label_names())
