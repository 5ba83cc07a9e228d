"""The classes of data and those that a network knows."""

import torch
from torch import Tensor

from dia_models import ModelInputError
from dia_models.data import ImageSource


def class_numbers(source: ImageSource, classes: tuple[str, ...], data: str) -> Tensor:
    """The network's class number for each class of the data.

    Raises ModelInputError for images without labels, and for a class that the network does not know.
    """
    if not source.classes:
        raise ModelInputError(
            "data", f"{data} has no classes, so its images have no labels; put each class in a folder of its own"
        )
    foreign = [name for name in source.classes if name not in classes]
    if foreign:
        raise ModelInputError(
            "data",
            f"{data} has classes that the network does not know: {', '.join(foreign)}; it knows {', '.join(classes)}",
        )
    return torch.tensor([classes.index(name) for name in source.classes])
