"""A run's configuration, from what a user says and what suits the network and the data."""

from collections.abc import Mapping
from typing import Any

import torch

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.data.detection.digit_scenes import SIDE
from dia_models.errors import ModelInputError, unknown
from dia_models.factory import accepted_options, build_model, task_of
from dia_models.spec import ModelSpec
from dia_models.training.config import RunConfig
from dia_models.training.recipe import Recipe, load_recipe

DEFAULT_RECIPE, FINE_TUNE = "one_cycle", "fine_tune"
SUITED: dict[str, dict[str, Any]] = {  # mirrored digits are none
    "digits": {"augment": "crop", "padding": 1},
    "digit-scenes": {"augment": "none", "min_size": SIDE},
}


def configure(
    model: str,
    data: str,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    image_size: int | None = None,
    channels: int = 3,
    seed: int = 0,
    start_from: str | None = None,
    keep_every: int | None = None,
) -> RunConfig:
    """What `fit` needs to train a network on a data set.

    Args:
        model: the network's name, as `list_models` gives them.
        data: the data set's name, or folder:PATH.
        recipe: a recipe's name; by default the one for such networks.
        settings: options of the network and fields of the recipe; some data have others than usual by default.
        image_size: pixels to resize image files to.
        channels: of image files, 1 or 3.
        seed: of weights, batches and everything else that is random.
        start_from: a checkpoint whose weights to start from.
        keep_every: also keep the network before training and after every so many epochs.

    Returns:
        The configuration, checked.

    Raises:
        ModelInputError: before any data are read, for what does not exist and for a setting that is neither.
    """
    if channels not in (1, 3):
        raise ModelInputError("channels", f"{channels} given; accepted: 1 or 3")
    name = recipe or _default_recipe(model)
    values = {**SUITED.get(data, {}), **(settings or {})}
    of_recipe = {key: value for key, value in values.items() if key in Recipe.model_fields}
    options = {key: value for key, value in values.items() if key not in of_recipe}
    accepted = accepted_options(model)
    for key in options.keys() - accepted.keys():
        raise unknown("set", key, [*Recipe.model_fields, *accepted], listed_by="docs/training.md")
    with torch.device("meta"):  # a depth that no network has shows when one is built
        build_model(ModelSpec(name=model, options=options))
    return RunConfig(
        model=model,
        options=options,
        data=data,
        recipe_name=name,
        recipe=load_recipe(name, **of_recipe),
        image_size=image_size,
        channels=channels,
        seed=seed,
        start_from=start_from,
        keep_every=keep_every,
    )


def fine_tuned(
    checkpoint: str,
    data: str | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    image_size: int | None = None,
    channels: int = 3,
    seed: int = 0,
    keep_every: int | None = None,
) -> RunConfig:
    """What `fit` needs to train the network of a checkpoint further.

    Args:
        checkpoint: a path, or the name of a bundled one; it says which network, and by default which data and which
            size of image files.
        data: another data set with the same classes.
        recipe: a recipe's name; by default `fine_tune`.
        settings: fields of the recipe.
        image_size: as for `configure`.
        channels: as for `configure`; where the data are the checkpoint's, its channels.
        seed: of batches and everything else that is random.
        keep_every: as for `configure`.

    Returns:
        The configuration, checked.

    Raises:
        ModelInputError: as `configure`, and if there is no such checkpoint.
    """
    info = Checkpoint.read(checkpoint).info
    if data is None and task_of(info.model.name) == "classification":
        image_size, channels = image_size or info.preprocessing.height, info.model.in_channels
    return configure(
        info.model.name,
        data or info.data,
        recipe or FINE_TUNE,
        {**info.model.options, **(settings or {})},
        image_size=image_size,
        channels=channels,
        seed=seed,
        start_from=checkpoint,
        keep_every=keep_every,
    )


def check_same(config: RunConfig, **given: str | int | None) -> None:
    """Raise ModelInputError if a run was started with another value than one that is given (None: any)."""
    for field, value in given.items():
        started = getattr(config, field)
        if value is not None and value != started:
            raise ModelInputError("resume", f"the run was started with {field} {started}, not {value}")


def _default_recipe(model: str) -> str:
    if task_of(model) == "detection":
        return "paper_retinanet" if model.startswith("retinanet") else "paper_detection"
    return DEFAULT_RECIPE
