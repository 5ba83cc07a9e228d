"""What a run is."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dia_models.errors import ModelInputError, first_problem
from dia_models.spec import Option
from dia_models.training.files import CONFIG
from dia_models.training.recipe import Recipe


class RunConfig(BaseModel):
    """What a run is: enough to start it again from nothing. It is in the run's directory before training begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["dia.run/1"] = "dia.run/1"
    model: str
    options: dict[str, Option] = {}
    data: str
    recipe_name: str
    recipe: Recipe
    image_size: int | None = Field(default=None, ge=1, le=4096)
    channels: int = Field(default=3, ge=1, le=3)
    seed: int = 0
    start_from: str | None = None
    keep_every: int | None = Field(default=None, ge=1)

    @classmethod
    def read(cls, directory: Path) -> "RunConfig":
        """Read the configuration of a run; fields that are younger than the run have their defaults.

        Args:
            directory: The run's directory.

        Raises:
            ModelInputError: If there is none, or one that this version does not understand.
        """
        path = directory / CONFIG
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelInputError("resume", f"{directory} holds no run: it has no {CONFIG}") from error
        except ValidationError as error:
            where, _, reason = first_problem(error)
            raise ModelInputError(
                "resume",
                f"{path} cannot be read: {where}: {reason}; if another version of dia-analysis wrote it, "
                "resume with that one",
            ) from error
