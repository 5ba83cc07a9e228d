"""Recipes: how a network is trained, as small files with names."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dia_models.errors import ModelInputError, first_problem, unknown

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Recipe(BaseModel):
    """A recipe file's fields; docs/training.md says what each does.

    `milestones` and `warmup` are fractions of the epochs, `validation` is one of the training images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    schedule: Literal["step", "one_cycle", "cosine"]
    milestones: tuple[Fraction, ...] = ()
    decay: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    augment: Literal["crop_flip", "crop", "resized_crop_flip", "none"] = "crop_flip"
    padding: int = Field(default=4, ge=0)
    validation: float = Field(default=0.1, ge=0, lt=1)
    training_images: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    frechet_features: str | None = None
    frechet_images: int | None = Field(default=None, ge=2)

    @property
    def streams(self) -> bool:
        """Whether images are read from their files at every use, as random parts at another size each time."""
        return self.augment == "resized_crop_flip"

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError("each milestone must be later than the one before")
        return milestones

    @field_validator("warmup")
    @classmethod
    def _once(cls, warmup: float, others: Any) -> float:
        if warmup and others.data.get("schedule") == "one_cycle":
            raise ValueError("the one_cycle schedule has a warm-up of its own; warmup is for step and cosine")
        return warmup

    @field_validator("nesterov")
    @classmethod
    def _with_momentum(cls, nesterov: bool, others: Any) -> bool:
        if nesterov and others.data.get("momentum") == 0:
            raise ValueError("it needs a momentum above 0")
        return nesterov


def refuse_streaming(stream: bool) -> None:
    """Raise ModelInputError if images are to be streamed, where only classifiers' can be."""
    if stream:
        raise ModelInputError(
            "set", "augment=resized_crop_flip is for classifiers; accepted for this network: crop_flip, crop, none"
        )


def list_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_recipe(name: str, **changes: Any) -> Recipe:
    """Read a recipe by name.

    Args:
        name: A recipe that comes with the package (`list_recipes`).
        **changes: Fields to change, such as `epochs=10`.

    Returns:
        The recipe; docs/training.md says what its fields do.

    Raises:
        ModelInputError: For an unknown recipe or field, and for a value that a field cannot have.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes(), listed_by="dia-train recipes")
    fields = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    for key in changes:
        if key not in Recipe.model_fields:
            raise unknown("set", key, Recipe.model_fields)
    try:
        return Recipe(**{**fields, **changes})
    except ValidationError as error:
        field, given, reason = first_problem(error)
        reason = reason.replace("a valid tuple", "a list, such as [0.5, 0.75]")
        raise ModelInputError("set", f"{field}={given!r}: {reason}") from error


def _folder() -> Path:
    return Path(str(files("dia_models") / "recipes"))
