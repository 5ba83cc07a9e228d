"""What is asked of a data set, and where data sets are looked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from dia_models.data.images import StoredImages
from dia_models.errors import ModelInputError


@dataclass(frozen=True)
class Request:
    """Which part of a data set to open, how to read files, and whether files that are missing may be downloaded.

    `limit` is how many images are taken of a source that does not say how many it has; `folder` is where images that a
    table names are, if not beside it, and `uncertain` what uncertain labels count as.
    """

    split: str
    root: Path
    workers: int = 2
    strict: bool = False
    download: bool = False
    limit: int = 1000
    folder: Path | None = None
    uncertain: str = "leave-out"

    @property
    def part(self) -> str:
        """`train` or `test`."""
        return "train" if self.split == "train" else "test"

    def missing(self, name: str, what: str, *, downloads: bool = False) -> ModelInputError:
        """The error that says what to put where."""
        more = ", or have it downloaded (download)" if downloads else ""
        return ModelInputError(
            "data",
            f"{name} is not in {self.root}: put {what} there, or name another folder (data_dir or $DIA_DATA_DIR){more}",
        )


SETS: dict[str, Callable[[Request], StoredImages]] = {}


def register_data_set(name: str) -> Callable[[Callable[[Request], StoredImages]], Callable[[Request], StoredImages]]:
    """Make a data set known by name."""

    def decorate(opener: Callable[[Request], StoredImages]) -> Callable[[Request], StoredImages]:
        SETS[name] = opener
        return opener

    return decorate


def data_root(given: str | Path | None = None) -> Path:
    """Where data sets are looked for.

    Args:
        given: A folder; None for `$DIA_DATA_DIR`, or else the user's cache folder.
    """
    return Path(given or os.environ.get("DIA_DATA_DIR") or user_cache_dir("dia"))
