"""What a network's output says: classes, their scores, and the number that speaks for one of them."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dia_analysis.errors import AnalysisInputError

SHOWN = 100
Scores = Literal["softmax", "sigmoid", "given"]
"""What outputs become: classes exclude each other; findings do not; or they are probabilities already."""
Target = int | np.integer[Any] | str | Sequence[int | str] | np.ndarray | Tensor


def as_logits(output: Any) -> Float[Tensor, "image logit"]:
    """The network's output as (image, logit), in at least float32. Raises AnalysisInputError for anything else.

    The output is that tensor, or one number per image, or holds either as `logits`, as an attribute or in a dict; in a
    dict, tuple or list without this name, the only tensor of one or two axes is taken.
    """
    found = _logits_in(output)
    shape = tuple(found.shape) if isinstance(found, Tensor) else None
    if shape is None or len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] == 0):
        given = f"a tensor {shape}" if shape is not None else _several(output)
        raise AnalysisInputError(
            "model",
            f"it gives {given}; class scores (image, class) are needed, as the output itself or as its `logits`; wrap "
            "the network in a module that returns them",
        )
    logits: Tensor = found[:, None] if len(shape) == 1 else found
    return logits if logits.dtype is torch.float64 else logits.float()


def _logits_in(output: Any) -> Any:
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return named
    parts = _parts(output)
    may_be = [part for part in parts if isinstance(part, Tensor) and part.ndim in (1, 2)]
    return may_be[0] if len(may_be) == 1 else output


def _parts(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, tuple | list) else []


def _several(output: Any) -> str:
    """What an output holds, for an error."""
    names = list(map(str, output)) if isinstance(output, Mapping) else []
    shapes = [str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__ for part in _parts(output)]
    held = ", ".join(f"{name}: {shape}" if name else shape for name, shape in zip_longest(names, shapes, fillvalue=""))
    kind = type(output).__name__
    return f"a {kind} of {held[:90]}{'...' if len(held) > 90 else ''}" if held else f"a {kind}"


def probabilities(logits: Float[Tensor, "image logit"], scores: Scores = "softmax") -> Float[Tensor, "image class"]:
    """Softmax; a single logit z is a head of two classes, with 1 - sigmoid(z) and sigmoid(z).

    Of findings that do not exclude each other each one's sigmoid, or the outputs themselves if these are given as
    probabilities.
    """
    if logits.shape[1] == 1:
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)
    return logits.softmax(1) if scores == "softmax" else logits.sigmoid() if scores == "sigmoid" else logits


def evidence(logits: Float[Tensor, "image logit"], targets: Int64[Tensor, "image"]) -> Float[Tensor, "image"]:
    """What speaks for each image's class: its logit; for a single logit z, z for class 1 and -z for class 0."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * targets - 1)
    return logits.gather(1, targets[:, None])[:, 0]


def name_classes(given: Sequence[str] | None, logits: int) -> tuple[str, ...]:
    """The names of a head's classes, by default their numbers. One name for a single logit names its class 1.

    Raises AnalysisInputError if there are not as many names as classes.
    """
    count = 2 if logits == 1 else logits
    if given is None:
        return tuple(map(str, range(count)))
    if logits == 1 and len(given) == 1:
        return (f"not {given[0]}", given[0])
    if len(given) != count:
        raise AnalysisInputError("class_names", f"{len(given)} class names for a network of {count} classes")
    return tuple(given)


def class_number(given: int | str, classes: Sequence[str]) -> int:
    """The number of a class given by name or, where no class has that name, by number.

    Raises AnalysisInputError for a class that does not exist, listing those that do.
    """
    if isinstance(given, str) and given in classes:
        return classes.index(given)
    number = int(given) if not isinstance(given, str) or (given.isascii() and given.isdigit()) else -1
    if 0 <= number < len(classes):
        return number
    near = get_close_matches(str(given), classes, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = f", ... ({len(classes)} in all)" if len(classes) > SHOWN else ""
    raise AnalysisInputError(
        "target",
        f"{given!r} is no class; {hint}accepted: {', '.join(classes[:SHOWN])}{more}, or 0 to {len(classes) - 1}",
    )


class Targets:
    """The classes to explain, handed out batch by batch: each image's predicted one, one for all, or one per image."""

    def __init__(self, given: Target | None):
        plain: Any = given.tolist() if isinstance(given, (Tensor, np.ndarray, np.generic)) else given
        self.per_image = isinstance(plain, Sequence) and not isinstance(plain, str)
        self.given: Any = plain
        self.used = 0

    def take(self, start: int, predicted: Int64[Tensor, "image"], classes: Sequence[str]) -> Int64[Tensor, "image"]:
        """The classes of the images from `start` on. Raises AnalysisInputError if there are too few."""
        if self.given is None:
            return predicted
        if not self.per_image:
            return torch.full_like(predicted, class_number(self.given, classes))
        chosen = self.given[start : start + len(predicted)]
        self.used = start + len(predicted)
        if len(chosen) < len(predicted):
            raise AnalysisInputError(
                "target", f"{len(self.given)} targets for more images; give one each, or one for all"
            )
        return torch.tensor([class_number(c, classes) for c in chosen], device=predicted.device, dtype=torch.int64)

    def finish(self) -> None:
        """Raise AnalysisInputError if there were more targets than images."""
        if self.per_image and self.used < len(self.given):
            raise AnalysisInputError("target", f"{len(self.given)} targets for {self.used} images; give one each")
