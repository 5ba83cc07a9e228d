"""The classes of data and those that a network knows."""

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_models.data.images import ImageSource
from dia_models.errors import ModelInputError, some


def class_numbers(source: ImageSource, classes: tuple[str, ...], data: str) -> Int64[Tensor, "class"]:
    """The network's class number for each class of the data; `data` is what errors call it.

    Raises ModelInputError for images without labels, and for a class that the network does not know.
    """
    if not source.classes:
        raise ModelInputError(
            "data", f"{data} has no classes, so its images have no labels; put each class in a folder of its own"
        )
    if foreign := [name for name in source.classes if name not in classes]:
        known = f"the network does not know: {some(foreign)}; it knows {some(classes, 10, 40)}"
        raise ModelInputError("data", f"{data} has classes that {known}")
    return torch.tensor([classes.index(name) for name in source.classes])
