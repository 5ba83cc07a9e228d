"""Recipes: how a network is trained, as small files with names."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dia_models.errors import ModelInputError, unknown


class Recipe(BaseModel):
    """A recipe file's fields. `milestones` are fractions of the epochs, `validation` one of the training images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    schedule: Literal["step", "one_cycle"]
    milestones: tuple[float, ...] = ()
    decay: float = Field(default=0.1, gt=0)
    augment: Literal["crop_flip", "crop", "none"] = "crop_flip"
    padding: int = Field(default=4, ge=0)
    validation: float = Field(default=0.1, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def list_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_recipe(name: str, **changes: Any) -> Recipe:
    """Read a recipe by name and change some of its fields.

    Raises ModelInputError for an unknown recipe or field, and for a value that a field cannot have.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes())
    fields = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    for key in changes:
        if key not in Recipe.model_fields:
            raise unknown("set", key, Recipe.model_fields)
    try:
        return Recipe(**{**fields, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelInputError("set", f"{field}={first['input']!r}: {first['msg']}") from error


def _folder() -> Path:
    return Path(str(files("dia_models") / "recipes"))
