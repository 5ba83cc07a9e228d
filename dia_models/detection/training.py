"""Train detectors: their scenes, the losses, and what they are tested on."""

from dataclasses import dataclass

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.data import Preprocessing
from dia_models.data.detection.scenes import Scenes
from dia_models.data.images import warn_of_unreadable
from dia_models.detection.average_precision import average_precision, detect, undefined_scores
from dia_models.detection.batches import SceneBatch, SceneBatches
from dia_models.detection.read_scenes import Parts
from dia_models.errors import ModelInputError
from dia_models.factory import create_model
from dia_models.spec import Network
from dia_models.training.batches import epoch_seed
from dia_models.training.config import RunConfig
from dia_models.training.distributed import all_reduce, world_size
from dia_models.training.module import Training
from dia_models.training.recipe import Recipe
from dia_models.training.scores import Scores

PREPROCESSING = Preprocessing(height=1, width=1, mean=(0.0,) * 3, std=(1.0,) * 3)
"""A detector takes values from 0 to 1 and does the rest by itself."""


@dataclass(frozen=True)
class Detection:
    """A detector's run: the scenes, and what is made of them."""

    config: RunConfig
    train: Scenes
    held_for_test: Scenes

    @classmethod
    def plan(cls, config: RunConfig, parts: Parts) -> "Detection":
        """Take as many scenes as the recipe says. Raises ModelInputError for what it says that detectors do not do."""
        train, test = parts
        _check(config.recipe)
        if (count := config.recipe.training_images) is not None:
            if count > len(train):
                raise ModelInputError("set", f"training_images={count}: there are {len(train)} images to train on")
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
            train = train.take(sorted(order[:count].tolist()))
        return cls(config, train, test)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, the background first."""
        return self.train.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """None to speak of."""
        return PREPROCESSING

    @property
    def best_by(self) -> None:
        """Nothing is held out."""
        return

    def build(self) -> Network:
        """The network, with random weights."""
        return create_model(self.config.model, num_classes=len(self.classes), in_channels=3, **self.config.options)

    def training(self, model: Network) -> "DetectorTraining":
        """Its training."""
        return DetectorTraining(model, self.config.recipe, len(self.train), self.config.seed)

    def data(self) -> "SceneData":
        """The batches."""
        return SceneData(self.train, self.config.recipe, self.config.seed)

    def test(self, model: nn.Module, device: torch.device) -> Scores:
        """COCO's average precision on the test images."""
        batches = detect(model, self.held_for_test, self.config.recipe.batch_size, device)
        detected = [each for batch in batches for each in batch]
        for scenes in (self.train, self.held_for_test):
            warn_of_unreadable(scenes.unreadable)
        found = average_precision(detected, self.held_for_test.objects, len(self.classes))
        return Scores(found.images, {f"test_{name}": value for name, value in found.scores.items()})

    def undefined_scores(self) -> Scores:
        """The scores of a network that computes no numbers."""
        nothing = undefined_scores(len(self.held_for_test), len(self.classes))
        return Scores(nothing.images, {f"test_{name}": value for name, value in nothing.scores.items()})


def _check(recipe: Recipe) -> None:
    """Refuse what is for classifiers."""
    refused = {"validation": recipe.validation, "label_smoothing": recipe.label_smoothing, "compile": recipe.compile}
    if recipe.augment != "none":
        refused |= {"padding": recipe.padding}
    for field, value in refused.items():
        if value:
            nothing = "false" if value is True else "0"
            raise ModelInputError("set", f"{field}={value} is not for detectors; accepted: {nothing}")


class SceneData(L.LightningDataModule):
    """Training batches that depend on nothing but the seed and the epoch."""

    def __init__(self, train: Scenes, recipe: Recipe, seed: int):
        super().__init__()
        self.train, self.recipe, self.seed = train, recipe, seed

    def train_dataloader(self) -> SceneBatches:
        """This epoch's batches."""
        assert self.trainer is not None
        seed = epoch_seed(self.seed, self.trainer.current_epoch)
        return SceneBatches(self.train, self.recipe.batch_size, seed, mirror=self.recipe.augment == "crop_flip")


class DetectorTraining(Training):
    """The sum of a detector's own losses; attention modules may add to it.

    Of several processes, each has the loss of its share of a batch, weighted by how many images that are.
    """

    def training_step(self, batch: SceneBatch) -> Float[Tensor, ""]:
        """The loss of one batch. Raises NotFiniteError."""
        images, targets, part = batch
        losses = self.model([image.float() / 255 for image in images], targets)
        loss, penalty = torch.stack(list(losses.values())).sum(), self.penalty()
        total = (loss + penalty).detach()
        seen = total.new_tensor(len(images) if part else 0)
        self.count(all_reduce(torch.stack([total * seen, seen])))
        return loss * part * world_size() + penalty
