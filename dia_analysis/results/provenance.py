"""Where a result comes from: enough to make it again."""

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "numba", "dia-analysis")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    return str(torch.__version__) if package == "torch" else version(package)  # torch's own names the CUDA build


@dataclass(frozen=True)
class Provenance:
    """What was analyzed. `checkpoint` is the network's name, `checkpoint_sha256` the hash of its file or its weights.

    None stands for what the caller did not say, and for the hash of random weights.
    """

    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    data: str | None = None
    selection: str | None = None
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=versions)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
