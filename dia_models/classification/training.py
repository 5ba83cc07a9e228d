"""Train classifiers: their data, the loss, and what they are tested on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dia_models.classification.evaluation import evaluate
from dia_models.data import Batch, MemoryImages, Preprocessing, StreamedImages, default_preprocessing, evenly_spaced
from dia_models.factory import create_model
from dia_models.spec import Network
from dia_models.training.batches import Labels, Pixels, TrainingData
from dia_models.training.config import RunConfig
from dia_models.training.distributed import all_reduce, world_size
from dia_models.training.module import Training
from dia_models.training.read_images import Images, Parts, split_validation
from dia_models.training.recipe import Recipe
from dia_models.training.scores import Evaluation

MEASURED_IMAGES = 2048  # of a set that does not lie in memory, for its mean and deviation


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
        kept, validation = split_validation(config, train)
        return cls(config, kept, validation, test, default_preprocessing(config.data, _some_pixels(kept)))

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

    def undefined_scores(self) -> Evaluation:
        """The scores of a network that computes no numbers."""
        return Evaluation.undefined(len(self.held_for_test), len(self.held_for_test.classes))


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


class ClassifierTraining(Training):
    """Cross-entropy, as a recipe says; attention modules may add to the loss."""

    metrics = ("loss", "accuracy")

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, images: int, seed: int):
        super().__init__(model, recipe, images, seed)
        self.preprocessing = preprocessing

    def training_step(self, batch: tuple[Pixels, Labels]) -> Float[Tensor, ""]:
        """The loss of one batch. Raises NotFiniteError."""
        pixels, labels = batch
        entropy, seen = _measure(self.run_model(self.preprocessing(pixels)), labels, self.recipe.label_smoothing)
        penalty = self.penalty()
        seen[0] += seen[2] * penalty.detach()
        self.count(seen)
        return entropy * world_size() / seen[2] + penalty  # the gradient is the processes' mean

    def validation_step(self, batch: tuple[Pixels, Labels]) -> None:
        """Measure one batch."""
        pixels, labels = batch
        self.tally = self.tally + _measure(self.network(self.preprocessing(pixels)), labels)[1]


def _measure(
    logits: Float[Tensor, "shown class"], labels: Labels, smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, "3"]]:
    """This process' summed cross-entropy; and over all processes the summed cross-entropy, hits and images."""
    logits = logits[: len(labels)].float()
    entropy = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    hits = (logits.detach().argmax(1) == labels).sum()
    return entropy, all_reduce(torch.stack([entropy.detach(), hits.float(), hits.new_tensor(len(labels)).float()]))
