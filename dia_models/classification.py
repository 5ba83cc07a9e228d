"""Train classifiers: their data, the loss, and what they are tested on."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dia_models.data import (
    Batch,
    ImageSource,
    MemoryImages,
    Preprocessing,
    StreamedImages,
    evenly_spaced,
    hold_out,
    open_data,
    suited,
)
from dia_models.data.images import fitted
from dia_models.data.splits import Images as Some
from dia_models.device import usable_cores
from dia_models.errors import ModelInputError
from dia_models.evaluation import Evaluation, evaluate, undefined
from dia_models.models import create_model
from dia_models.network import Network
from dia_models.processes import size, summed
from dia_models.recipe import Recipe, refuse_streaming
from dia_models.run_config import RunConfig
from dia_models.subset import balanced_subset
from dia_models.training import Batches, Labels, Pixels, StreamedBatches, Training, epoch_seed

Images = MemoryImages | StreamedImages
Parts = tuple[Images, Images]  # to train on, and to test on
MEASURED_IMAGES = 2048  # of a set that does not lie in memory, for its mean and deviation


def read_images(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> tuple[MemoryImages, MemoryImages]:
    """Read the training and the test images of a data set into memory, files at `image_size` pixels.

    `how` are options of `open_data`. Raises ModelInputError for `stream`: these do not lie in files.
    """
    refuse_streaming(stream)
    train, test = (open_data(data, part, data_dir, **how) for part in ("train", "test"))
    return _in_memory(train, image_size, channels), _in_memory(test, image_size, channels)


def find_images(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> None:
    """See that the images of both parts are there, without decoding files. Takes and raises as `read_images`."""
    for part in ("train", "test"):
        open_data(data, part, data_dir, **how)


def read_classes(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> Parts:
    """As `read_images`; with `stream` the files are read when they are needed.

    Raises ModelInputError for data without classes, if the two parts' are not the same, and for data that are no files
    if they are to be streamed.
    """
    if stream:
        found = (open_data(data, part, data_dir, workers=len(usable_cores()), **how) for part in ("train", "test"))
        train, test = (_streamed(data, source, image_size, channels) for source in found)
        return _with_classes(data, train, test)
    return _with_classes(data, *read_images(data, image_size, channels, data_dir=data_dir, **how))


def _with_classes(data: str, train: Images, test: Images) -> Parts:
    if not train.classes:
        raise ModelInputError("data", f"{data} has no classes to train on; put each class in a folder of its own")
    if test.classes != train.classes:
        raise ModelInputError("data", f"{data}: the test classes are not the training classes")
    return train, test


def divided(config: RunConfig, train: Some) -> tuple[Some, Some | None]:
    """The images to train on and, if the recipe has any, those to validate on."""
    kept, validation = hold_out(train, config.recipe.validation, config.seed)
    if config.recipe.training_images is not None:
        kept = balanced_subset(kept, config.recipe.training_images, config.seed)
    return kept, validation


@dataclass(frozen=True)
class Classification:
    """A classifier's run: the images, and what is made of them."""

    config: RunConfig
    train: Images
    validation: Images | None
    held_for_test: Images
    preprocessing: Preprocessing

    @classmethod
    def plan(cls, config: RunConfig, parts: Parts) -> "Classification":
        """Divide the images as the recipe says."""
        train, test = parts
        kept, validation = divided(config, train)
        return cls(config, kept, validation, test, suited(config.data, _some_pixels(kept)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        return self.train.classes

    @property
    def best_by(self) -> str | None:
        """The best epoch has the greatest accuracy."""
        return None if self.validation is None else "val_accuracy"

    def build(self) -> Network:
        """The network, with random weights."""
        classes, channels, options = len(self.classes), self.train.channels, self.config.options
        return create_model(self.config.model, num_classes=classes, in_channels=channels, **options)

    def training(self, model: Network) -> "ClassifierTraining":
        """Its training."""
        return ClassifierTraining(model, self.config.recipe, self.preprocessing, len(self.train), self.config.seed)

    def data(self) -> "TrainingData":
        """The batches."""
        return TrainingData(self.train, self.validation, self.config.recipe, self.config.seed)

    def test(self, model: nn.Module, device: torch.device) -> Evaluation:
        """Accuracy and loss on the test images."""
        test = self.held_for_test
        batches = _batches(test, range(len(test)), self.config.recipe.batch_size)
        return evaluate(model, batches, self.preprocessing, len(test.classes), device)

    def undefined(self) -> Evaluation:
        """The scores of a network that computes no numbers."""
        return undefined(len(self.held_for_test), len(self.held_for_test.classes))


def _in_memory(source: ImageSource, image_size: int | None, channels: int) -> MemoryImages:
    size = None if image_size is None else (image_size, image_size)
    if isinstance(source, MemoryImages):
        return replace(source, pixels=fitted(source.pixels, size, source.pixels.shape[3]))
    images = source.load(size, channels)
    if source.unreadable:
        names = ", ".join(sorted(source.unreadable))
        warnings.warn(f"{len(source.unreadable)} images cannot be read and are left out: {names}", stacklevel=2)
    return images


def _streamed(data: str, source: ImageSource, image_size: int | None, channels: int) -> StreamedImages:
    if isinstance(source, MemoryImages):
        raise ModelInputError(
            "set", f"augment=resized_crop_flip cuts parts out of image files, and {data} has none; accepted: crop_flip"
        )
    if image_size is None:
        raise ModelInputError("image-size", "augment=resized_crop_flip needs the size of the parts: --image-size 224")
    return StreamedImages(source, (image_size, image_size), channels)


def _some_pixels(images: Images) -> UInt8[Tensor, "image height width channel"]:
    """All that lie in memory, or some of the files."""
    if isinstance(images, MemoryImages):
        return images.pixels
    some = evenly_spaced(min(MEASURED_IMAGES, len(images)), len(images))
    return torch.cat([batch.pixels for batch in _batches(images, some, 64)])


def _batches(images: Images, indices: Sequence[int], batch_size: int) -> Iterator[Batch]:
    if isinstance(images, StreamedImages):
        return images.batches(indices, batch_size)
    return images.batches(indices, batch_size, None, images.channels)


class TrainingData(L.LightningDataModule):
    """Training batches that depend on nothing but the seed and the epoch; validation batches in fixed order."""

    def __init__(self, train: Images, validation: Images | None, recipe: Recipe, seed: int):
        super().__init__()
        self.train, self.validation, self.recipe, self.seed = train, validation, recipe, seed

    def setup(self, stage: str) -> None:
        """Move the images to the device."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.train = self.train.to(device)
        self.validation = None if self.validation is None else self.validation.to(device)

    def train_dataloader(self) -> Batches | StreamedBatches:
        """This epoch's batches."""
        assert self.trainer is not None
        seed = epoch_seed(self.seed, self.trainer.current_epoch)
        if isinstance(self.train, StreamedImages):
            return StreamedBatches(self.train, self.recipe.batch_size, seed)
        return Batches(self.train, self.recipe.batch_size, seed, self.recipe.augment, self.recipe.padding)

    def val_dataloader(self) -> Batches | StreamedBatches | list[Any]:
        """The images held out from training."""
        if isinstance(self.validation, StreamedImages):
            return StreamedBatches(self.validation, self.recipe.batch_size)
        return [] if self.validation is None else Batches(self.validation, self.recipe.batch_size)


class ClassifierTraining(Training):
    """Cross-entropy, as a recipe says; attention modules may add to the loss."""

    measured = ("loss", "accuracy")

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, images: int, seed: int):
        super().__init__(model, recipe, images, seed)
        self.preprocessing = preprocessing

    def training_step(self, batch: tuple[Pixels, Labels]) -> Float[Tensor, ""]:
        """The loss of one batch. Raises NotFiniteError."""
        pixels, labels = batch
        entropy, seen = _seen(self.run_model(self.preprocessing(pixels)), labels, self.recipe.label_smoothing)
        penalty = self.penalty()
        seen[0] += seen[2] * penalty.detach()
        self.count(seen)
        return entropy * size() / seen[2] + penalty  # the gradient is the processes' mean

    def validation_step(self, batch: tuple[Pixels, Labels]) -> None:
        """Measure one batch."""
        pixels, labels = batch
        self.tally = self.tally + _seen(self.network(self.preprocessing(pixels)), labels)[1]


def _seen(
    logits: Float[Tensor, "shown class"], labels: Labels, smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, "3"]]:
    """This process' summed cross-entropy; and over all processes the summed cross-entropy, hits and images."""
    logits = logits[: len(labels)].float()
    entropy = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    hits = (logits.detach().argmax(1) == labels).sum()
    return entropy, summed(torch.stack([entropy.detach(), hits.float(), hits.new_tensor(len(labels)).float()]))
