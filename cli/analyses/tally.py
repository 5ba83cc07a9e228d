"""How many of the images that a network sees does it get right? Counted while an analysis runs it on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cli.common.inputs import Inputs
from dia_analysis.distributed import gathered
from dia_analysis.paper.untrained import Training
from dia_models import ModelInputError
from dia_models.data.labels import class_numbers


class Tally:
    """Counts the right answers of a network; images without a label of one of its classes do not count."""

    def __init__(self, inputs: Inputs):
        self.inputs, self.info = inputs, inputs.checkpoint.info
        self.numbers = _numbers(inputs)
        self.labels = torch.empty(0)
        self.right = self.images = 0

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images, for a network that is watched meanwhile."""
        for pixels, labels in self.inputs.labelled(label):
            self.labels = labels
            yield pixels

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Count what the network answers inside the block."""
        handle = model.register_forward_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def training(self) -> Training:
        """What shows that the network was trained: its record, and these answers, of all processes together."""
        recorded = "epochs" in self.info.recipe and self.info.epoch != 0
        right, images = (sum(gathered(count)) for count in (self.right, self.images))
        return Training(recorded, right, images, len(self.info.classes))

    def _count(self, _: nn.Module, __: Any, output: Tensor) -> None:
        if self.numbers is None:
            return
        known = self.labels >= 0
        wanted, scores = self.numbers[self.labels[known]], output.cpu()[known]
        right = (scores.argmax(1) == wanted) & scores.isfinite().all(1)  # of a network that diverged, none is
        self.right += int(right.sum())
        self.images += len(wanted)


def _numbers(inputs: Inputs) -> Tensor | None:
    """The network's class number for each class of the data; None if it does not know them all."""
    try:
        return class_numbers(inputs.images.source, inputs.classes, inputs.images.data)
    except ModelInputError:
        return None
