"""dia-train generate: images out of noise, and how far they are from real ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cli.common.console import tracked
from cli.common.naming import read_named
from cli.common.publish import Found, Out
from dia_analysis import Provenance
from dia_analysis.results.output import write_json
from dia_analysis.results.words import quantity
from dia_models import Checkpoint, ModelInputError
from dia_models.factory import task_of
from dia_models.generation.features import INCEPTION, feature_network
from dia_models.generation.image_score import ImageScore, score_images
from dia_models.generation.sampling import generate, grid, save_pictures
from dia_models.training.device import choose_device
from dia_models.training.read_images import read_images

GRID, GRID_COLUMNS, GRID_PIXELS = 64, 8, 512


def generate_images(
    ckpt: str,
    images: int,
    *,
    steps: int,
    features: str | None,
    out: Out,
    data_dir: Path | None,
    device: str,
    batch_size: int,
    seed: int,
    as_json: bool,
) -> None:
    """Write numbered PNG files, a grid of the first ones and, if `features` is given, their Fréchet distance."""
    with out.folder("generate") as taken:
        checkpoint, where = _generator(ckpt), choose_device(device)
        info = checkpoint.info
        network = None if features is None else feature_network(features)
        real = None if network is None else _real(checkpoint, data_dir)
        shape = (info.model.in_channels, *info.preprocessing.size)
        options: dict[str, Any] = {"seed": seed, "steps": steps, "batch_size": batch_size}
        batches = generate(checkpoint.build().to(where), shape, range(images), where, **options)
        made = list(tracked(batches, -(-images // batch_size), checkpoint.name))
        score = None if network is None or real is None else score_images(made, real, network, where)
        _found(checkpoint, made, steps, seed, score).publish(taken, as_json=as_json)


def _found(checkpoint: Checkpoint, made: list[torch.Tensor], steps: int, seed: int, score: ImageScore | None) -> Found:
    images, data = sum(map(len, made)), checkpoint.info.data
    document = {
        "schema": "dia.generate/1",
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": checkpoint.sha256,
        "images": images,
        "steps": steps,
        "seed": seed,
        "frechet": None if score is None else score.to_dict(),
    }
    text = f"{quantity(images, 'image')} of {checkpoint.name}, {steps} steps each"
    if score is not None:
        text += (
            f"\n  {'FID' if score.features == INCEPTION else 'Fréchet distance'} {score.distance:.2f} to "
            f"{score.reference_images} training images of {data}, in the features of {score.features}"
        )

    def write(folder: Path) -> None:
        pixels = torch.cat(made)
        save_pictures(pixels, folder, 0)
        scale = max(1, GRID_PIXELS // (GRID_COLUMNS * pixels.shape[1]))
        grid(pixels[:GRID], GRID_COLUMNS, scale).save(folder / "grid.png")
        write_json(folder / "generate.json", document)

    models = [{"name": checkpoint.name, "checkpoint_sha256": checkpoint.sha256}]
    about = {**replace(Provenance(), data=data, seed=seed).to_dict(), "models": models, "steps": steps}
    return Found(about, document, text, write)


def _generator(ckpt: str) -> Checkpoint:
    [checkpoint] = read_named([ckpt])
    name = checkpoint.info.model.name
    if (task := task_of(name)) != "noise prediction":
        raise ModelInputError(
            "ckpt",
            f"{name} is a network for {task}; one for noise prediction is needed here: dia-train fit --model uvit_tiny",
        )
    return checkpoint


def _real(checkpoint: Checkpoint, data_dir: Path | None) -> Any:
    info = checkpoint.info
    return read_images(info.data, info.preprocessing.height, info.model.in_channels, data_dir=data_dir)[0]
