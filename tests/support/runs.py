"""Short runs on digits."""

import csv

import torch

from dia_models.training.config import RunConfig
from dia_models.training.recipe import load_recipe

CPU = torch.device("cpu")


def config(epochs=2, model="cifar_resnet11_dia_lstm", seed=3, **changes):
    recipe = load_recipe(
        "one_cycle",
        epochs=epochs,
        batch_size=256,
        augment="crop",
        padding=1,
        validation=0.1,
        **{"precision": "float32", **changes},
    )
    return RunConfig(model=model, data="digits", recipe_name="one_cycle", recipe=recipe, seed=seed)


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
