"""Images that a checkpoint's network makes out of noise, and how far they are from those it was trained on."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.errors import ModelInputError
from dia_models.factory import task_of
from dia_models.files import write_atomically
from dia_models.generation.features import INCEPTION, feature_network
from dia_models.generation.frechet import ImageScore, score_images
from dia_models.generation.sampling import STEPS, Pixels, generate, grid, save_pictures
from dia_models.training.read_images import read_images
from dia_models.words import quantity

GRID, GRID_COLUMNS, GRID_PIXELS = 64, 8, 512
Watch = Callable[[Iterable[Pixels], int, str], Iterable[Pixels]]


@dataclass(frozen=True)
class GeneratedImages:
    """Images of a checkpoint's network, by seed and number of sampling steps, and their `score` if asked for."""

    checkpoint: Checkpoint
    pixels: Pixels
    steps: int
    seed: int
    score: ImageScore | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.generate/1."""
        return {
            "schema": "dia.generate/1",
            "checkpoint": self.checkpoint.name,
            "checkpoint_sha256": self.checkpoint.sha256,
            "images": len(self.pixels),
            "steps": self.steps,
            "seed": self.seed,
            "frechet": None if self.score is None else self.score.to_dict(),
        }

    def summary(self) -> str:
        """How many, and the distance if it was measured."""
        text = f"{quantity(len(self.pixels), 'image')} of {self.checkpoint.name}, {self.steps} steps each"
        if self.score is None:
            return text
        name = "FID" if self.score.features == INCEPTION else "Fréchet distance"
        return (
            f"{text}\n  {name} {self.score.distance:.2f} to {self.score.reference_images} training images of "
            f"{self.checkpoint.info.data}, in the features of {self.score.features}"
        )

    def write(self, folder: Path) -> None:
        """Write numbered PNG files, a grid of the first ones, and the document."""
        save_pictures(self.pixels, folder, 0)
        scale = max(1, GRID_PIXELS // (GRID_COLUMNS * self.pixels.shape[1]))
        grid(self.pixels[:GRID], GRID_COLUMNS, scale).save(folder / "grid.png")
        write_atomically(
            folder / "generate.json", f"{json.dumps(self.to_dict(), indent=2, allow_nan=False)}\n".encode()
        )


def generate_images(
    checkpoint: Checkpoint,
    images: int,
    *,
    device: torch.device,
    steps: int = STEPS,
    seed: int = 0,
    batch_size: int = 256,
    features: str | None = None,
    data_dir: Path | None = None,
    watch: Watch = lambda batches, count, name: batches,
) -> GeneratedImages:
    """Make images out of noise; the same seed makes the same images.

    Args:
        checkpoint: A network that predicts noise.
        images: How many.
        device: Where to compute.
        steps: Sampling steps per image.
        seed: Of the noise.
        batch_size: Images at a time.
        features: A classifier, or inception, in whose features the distance to the training images is measured.
        data_dir: Where the training images are.
        watch: Passes the batches on, given their number and the checkpoint's name.

    Returns:
        The images, and their Fréchet distance if `features` are given.

    Raises:
        ModelInputError: For a network that does not predict noise, and for features or training images that are not
            there.
    """
    info = checkpoint.info
    if (task := task_of(info.model.name)) != "noise prediction":
        raise ModelInputError(
            "ckpt",
            f"{info.model.name} is a network for {task}; one for noise prediction is needed here, such as uvit_tiny",
        )
    network = None if features is None else feature_network(features)
    size, channels = info.preprocessing.size, info.model.in_channels
    real = None if network is None else read_images(info.data, size[0], channels, data_dir=data_dir)[0]
    how: Any = {"seed": seed, "steps": steps, "batch_size": batch_size}
    batches = generate(checkpoint.build().to(device), (channels, *size), range(images), device, **how)
    made = list(watch(batches, -(-images // batch_size), checkpoint.name))
    score = None if network is None or real is None else score_images(made, real, network, device)
    return GeneratedImages(checkpoint, torch.cat(made), steps, seed, score)
