"""A network that is ready to be analysed, and all that is known of it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.checkpoints.untrained import UntrainedNetwork, untrained_network
from dia_models.data.labels import Outputs
from dia_models.data.preprocessing import Preprocessing
from dia_models.errors import ModelInputError
from dia_models.networks.checks import gives_probabilities
from dia_models.networks.preprocessing import ASSUMED
from dia_models.spec import ModelSpec, Network

Training = Literal["recorded", "loaded", "none"]


@dataclass(frozen=True, eq=False)
class OpenedNetwork:
    """A network in evaluation mode on the CPU, the images that it expects, and where all that comes from.

    Attributes:
        name: What it is called; by default after its source.
        source: How it was named: a model, or a checkpoint.
        model: The network.
        preprocessing: What its images go through: size, then mean and std of each channel.
        num_classes: How many class scores it gives; None if its output is something else.
        classes: Their names, if known, and `synsets`, ImageNet's.
        weights: In words, where its weights come from.
        training: `recorded` by its checkpoint; not recorded, but the weights were `loaded`; `none`: they are random.
        origins: Where `image_size`, `channels`, `mean`, `std` and `classes` come from; what was assumed begins so.
        seed: From which random weights were or would be drawn.
        checkpoint: The checkpoint of this library that it was read from.
        separate: Whether its outputs are known to be findings, of which an image may have several.
    """

    name: str
    source: str
    model: nn.Module
    preprocessing: Preprocessing
    num_classes: int | None
    classes: tuple[str, ...] | None
    weights: str
    training: Training
    origins: Mapping[str, str]
    seed: int = 0
    synsets: tuple[str, ...] | None = None
    checkpoint: Checkpoint | None = None
    separate: bool = False
    make_again: Callable[[], nn.Module] | None = field(default=None, repr=False)

    @cached_property
    def sha256(self) -> str:
        """The checkpoint file's hash; of other networks one of all parameters and buffers: names, types and values."""
        return self.checkpoint.sha256 if self.checkpoint else hash_tensors(self.model.state_dict())

    @cached_property
    def gives_probabilities(self) -> bool:
        """Whether its outputs are probabilities already, not logits."""
        return gives_probabilities(self.model, self.preprocessing)

    @property
    def spec(self) -> ModelSpec | None:
        """The description of a network of this library; None for any other."""
        return self.model.spec if isinstance(self.model, Network) else None

    @property
    def outputs(self) -> Outputs:
        """What its outputs stand for. Raises ModelInputError if it gives no class scores."""
        if self.num_classes is None:
            raise ModelInputError("model", f"{self.name} gives no class scores (image, class), which are needed here")
        return Outputs(self.num_classes, self.classes, self.synsets)

    @property
    def model_name(self) -> str:
        """The model that it is: of this library, or as it was named."""
        return self.spec.name if self.spec else self.source

    @property
    def label(self) -> str:
        """What it is: the same for training runs of one network of this library that differ in their seed only."""
        return self.spec.label if self.spec else self.name

    @property
    def data(self) -> str | None:
        """The data that it was trained on, if its checkpoint says so."""
        return self.checkpoint.info.data if self.checkpoint else None

    def origin(self) -> dict[str, Any]:
        """Which network it is and how it was trained, as the document dia.eval/1 has it."""
        if self.checkpoint is not None:
            return {**self.checkpoint.origin(), "checkpoint": self.name}
        return {
            "checkpoint": self.name,
            "checkpoint_sha256": self.sha256,
            "network": self.source,
            "training_seed": None,
            "machine": None,
        }

    def untrained(self) -> UntrainedNetwork | None:
        """The same network without its training; None if its own weights are random."""
        if self.checkpoint is not None:
            return untrained_network(self.checkpoint)
        if self.make_again is None:
            return None
        return UntrainedNetwork(self.make_again().eval(), f"random, seed {self.seed}", exact=False)

    def remarks(self) -> list[str]:
        """What must be known of its accuracy, in lines: that it is not trained."""
        return [f"  not trained: its weights are {self.weights}"] if self.training == "none" else []

    def assumptions(self) -> list[str]:
        """What nothing said and was assumed, as phrases."""
        shown = self.preprocessing
        values = {
            "image_size": f"{shown.height}x{shown.width}",
            "channels": str(len(shown.mean)),
            "mean": ", ".join(f"{value:g}" for value in shown.mean),
            "std": ", ".join(f"{value:g}" for value in shown.std),
            "classes": ", ".join((self.classes or ())[:4]) + (", …" if len(self.classes or ()) > 4 else ""),
        }
        return [
            f"{name} {values[name]} ({origin.removeprefix(ASSUMED).lstrip(': ')})"
            for name, origin in self.origins.items()
            if origin.startswith(ASSUMED)
        ]


def hash_tensors(tensors: Mapping[str, object]) -> str:
    """SHA-256 of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
