"""Train networks that predict noise: their data, the loss, and what the images that they generate are worth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.data import MemoryImages, Preprocessing
from dia_models.errors import ModelInputError
from dia_models.factory import create_model
from dia_models.generation.diffusion import TIME_FACTOR, add_noise
from dia_models.generation.features import BATCH, feature_network
from dia_models.generation.frechet import score_images
from dia_models.generation.sampling import STEPS, NotFiniteImagesError, generate
from dia_models.spec import Network
from dia_models.training.batches import Batches, Pixels, TrainingData, share
from dia_models.training.config import RunConfig
from dia_models.training.distributed import all_reduce, rank, world_size
from dia_models.training.module import Training
from dia_models.training.read_images import split_validation
from dia_models.training.recipe import Recipe
from dia_models.training.scores import Scores

Times = Float[Tensor, "batch"]
Noise = Float[Tensor, "shown channel height width"]
NoisyBatch = tuple[Pixels, Times, Noise]
Model = Callable[..., Any]


@dataclass(frozen=True)
class NoisyBatches:
    """Batches of images, each with a time and noise of its own, both drawn for all processes together."""

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[NoisyBatch]:
        device = self.batches.images.pixels.device
        generator = torch.Generator(device)
        for pixels, _ in self.batches.whole(generator):
            images, height, width, channels = pixels.shape
            times = torch.rand(images, generator=generator, device=device)
            noise = torch.randn(images, channels, height, width, generator=generator, device=device)
            yield share(pixels), times[rank() :: world_size()], share(noise)


class NoisyData(TrainingData):
    """The same images in the same order as for a classifier, with noise; that of the validation images is always the
    same.
    """

    def train_dataloader(self) -> NoisyBatches:  # type: ignore[override]
        """This epoch's batches."""
        batches = super().train_dataloader()
        assert isinstance(batches, Batches)  # `read_images` refuses to stream
        return NoisyBatches(batches)

    def val_dataloader(self) -> NoisyBatches | list[NoisyBatch]:  # type: ignore[override]
        """The images held out from training."""
        held = super().val_dataloader()
        return NoisyBatches(held) if isinstance(held, Batches) else []


class NoiseTraining(Training):
    """The mean squared error of the noise that the network sees in noised images."""

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, images: int, seed: int):
        super().__init__(model, recipe, images, seed)
        self.preprocessing = preprocessing

    def training_step(self, batch: NoisyBatch) -> Float[Tensor, ""]:
        """The loss of one batch. Raises NotFiniteError."""
        error, seen = self._measure(self.run_model, batch)
        penalty = self.penalty()
        seen[0] += seen[1] * penalty.detach()
        self.count(seen)
        return error * world_size() / seen[1] + penalty

    def validation_step(self, batch: NoisyBatch) -> None:
        """Measure one batch."""
        self.tally = self.tally + self._measure(self.network, batch)[1]

    def _measure(self, model: Model, batch: NoisyBatch) -> tuple[Float[Tensor, ""], Float[Tensor, "2"]]:
        """This process' summed error; and over all processes the summed error and the number of images."""
        pixels, times, noise = batch
        errors = noise_errors(model, self.preprocessing(pixels), times, noise)
        error = errors[: len(times)].sum()
        return error, all_reduce(torch.stack([error.detach(), error.new_tensor(len(times))]))


def noise_errors(model: Model, images: Noise, times: Times, noise: Noise) -> Float[Tensor, "shown"]:
    """The mean squared error for each image; one without a time is at 0.5."""
    at = torch.cat([times, times.new_full((len(images) - len(times),), 0.5)])
    predicted = model(add_noise(images, noise, at), TIME_FACTOR * at)
    errors: Tensor = (predicted.float() - noise).square().flatten(1).mean(1)
    return errors


@dataclass(frozen=True)
class NoisePrediction:
    """The run of a network that predicts noise. Images have values from -1 to 1.

    `real` are the training images, before any are held out, to which generated ones are compared.
    """

    config: RunConfig
    train: MemoryImages
    validation: MemoryImages | None
    real: MemoryImages
    held_for_test: MemoryImages

    @classmethod
    def plan(cls, config: RunConfig, parts: tuple[MemoryImages, MemoryImages]) -> "NoisePrediction":
        """Divide the images as the recipe says. Raises ModelInputError for a feature network that is not there."""
        real, test = parts
        job = cls(config, *split_validation(config, real), real, test)
        if config.recipe.frechet_features is not None:
            try:
                feature_network(config.recipe.frechet_features)  # rather now than after hours of training
            except ModelInputError as error:
                raise ModelInputError("set", f"frechet_features: {error}") from error
        elif config.recipe.frechet_images is not None:
            raise ModelInputError(
                "set", "frechet_images needs frechet_features: a classifier's checkpoint or inception"
            )
        return job

    @property
    def classes(self) -> tuple[str, ...]:
        """None."""
        return ()

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Bytes become values from -1 to 1."""
        height, width, channels = self.train.pixels.shape[1:]
        return Preprocessing(height=height, width=width, mean=(0.5,) * channels, std=(0.5,) * channels)

    @property
    def best_by(self) -> str | None:
        """The best epoch has the least loss."""
        return None if self.validation is None else "val_loss"

    def build(self) -> Network:
        """The network, with random weights, for the images' size."""
        height, width, channels = self.train.pixels.shape[1:]
        if height != width:
            raise ModelInputError("data", f"{self.config.data} has images of {height}x{width}; give square ones")
        options: dict[str, Any] = {"image_size": height, **self.config.options}
        return create_model(self.config.model, in_channels=channels, **options)

    def training(self, model: Network) -> NoiseTraining:
        """Its training."""
        return NoiseTraining(model, self.config.recipe, self.preprocessing, len(self.train), self.config.seed)

    def data(self) -> NoisyData:
        """The batches."""
        return NoisyData(self.train, self.validation, self.config.recipe, self.config.seed)

    def test(self, model: nn.Module, device: torch.device) -> Scores:
        """The loss on the test images, each with one noise, and the Fréchet distance if the recipe asks for it."""
        model.eval()
        scores = {"test_loss": self._loss(model, device)}
        features = self.config.recipe.frechet_features
        if features is None:
            return Scores(len(self.held_for_test), scores)
        network = feature_network(features)
        height, width, channels = self.real.pixels.shape[1:]
        count = range(self.config.recipe.frechet_images or len(self.real))
        made = generate(model, (channels, height, width), count, device, seed=self.config.seed)
        try:
            found = score_images(made, self.real, network, device)
        except NotFiniteImagesError:
            return Scores(len(self.held_for_test), {**scores, "test_frechet": nan})
        floor = score_images(torch.split(self.held_for_test.pixels, BATCH), self.real, network, device)
        details = {**found.to_dict(), "steps": STEPS, "of_test_images": floor.distance}
        return Scores(len(self.held_for_test), {**scores, "test_frechet": found.distance}, {"frechet": details})

    def undefined_scores(self) -> Scores:
        """No number."""
        names = ["test_loss"] + ["test_frechet"] * (self.config.recipe.frechet_features is not None)
        return Scores(len(self.held_for_test), dict.fromkeys(names, nan))

    @torch.inference_mode()
    def _loss(self, model: nn.Module, device: torch.device) -> float:
        """Of every process on all test images."""
        total, generator = 0.0, torch.Generator().manual_seed(0)
        for pixels in torch.split(self.held_for_test.pixels, BATCH):
            images = self.preprocessing(pixels)
            times, noise = torch.rand(len(images), generator=generator), torch.randn(images.shape, generator=generator)
            errors = noise_errors(model, images.to(device), times.to(device), noise.to(device))
            total += float(errors.double().sum())
        return total / len(self.held_for_test)
