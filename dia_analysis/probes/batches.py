"""What may be given as batches of images, by one rule for all analyses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dia_analysis.errors import AnalysisInputError

IMAGES = ("pixel_values", "images", "image", "inputs", "input", "img", "x")
LABELS = ("labels", "label", "targets", "target", "y")
ACCEPTED = "a tensor, a tuple or list that starts with one, or a dict"


def iterate_batches(given: Any) -> Iterator[Any]:
    """The batches one by one: `given` is an iterable of batches, or a single batch.

    A batch is a tensor, a tuple or list (images, labels, ...), or a dict with images and labels under one of the keys
    IMAGES and LABELS. A single one is a tensor, a dict, or a pair (images, labels).
    Raises AnalysisInputError for what is none of these.
    """
    if isinstance(given, Tensor | Mapping) or _is_pair(given):
        return iter([given])
    try:
        return iter(given)
    except TypeError:
        raise AnalysisInputError(
            "data", f"a {type(given).__name__} was given; give batches, or one batch: {ACCEPTED}"
        ) from None


def inputs_of(batch: Any) -> Tensor:
    """The network's input in a batch. Raises AnalysisInputError if there is no tensor where it should be."""
    if isinstance(batch, Mapping):
        found = _value(batch, IMAGES)
        if found is None:
            raise AnalysisInputError(
                "data", f"a batch is a dict with {_keys(batch)}; its images are looked for as {', '.join(IMAGES)}"
            )
    else:
        found = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
    if not isinstance(found, Tensor):
        raise AnalysisInputError("data", f"a batch gives a {type(found).__name__} as images; give {ACCEPTED}")
    return found


@contextmanager
def blaming_whole_numbers(images: Tensor) -> Iterator[None]:
    """Inside, a network runs on these images; where it fails and they are whole numbers, the error says so.

    A network may take them and divide by 255 itself, so they are not refused beforehand.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if images.is_floating_point():
            raise
        raise AnalysisInputError(
            "data", f"images of {images.dtype} given; give floating-point numbers, prepared as the network expects them"
        ) from error


def targets_of(batch: Any) -> Any:
    """What stands where the labels do, of any kind: the second of a tuple or list, or in a dict; None if nothing."""
    if isinstance(batch, Mapping):
        return _value(batch, LABELS)
    return batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def labels_of(batch: Any) -> Tensor | None:
    """The labels in a batch, as `targets_of`; None if there are none."""
    found = targets_of(batch)
    return found if isinstance(found, Tensor) else None


def _is_pair(given: Any) -> bool:
    """Whether it is one batch (images, labels) and no list of two batches: labels have one or two axes."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(part, Tensor) for part in given):
        return False
    images, labels = given
    return images.ndim > 2 and labels.ndim in (1, 2) and len(images) == len(labels)


def _value(batch: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((batch[name] for name in names if name in batch), None)


def _keys(batch: Mapping[Any, Any]) -> str:
    some = ", ".join(map(str, list(batch)[:6]))
    return f"the keys {some}" if batch else "no keys"
