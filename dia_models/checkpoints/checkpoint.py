"""Checkpoints: one safetensors file that holds a network's weights and all that is needed to use it."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from dia_models.checkpoints.files import locate_checkpoint
from dia_models.data import Preprocessing
from dia_models.errors import ModelInputError, first_problem
from dia_models.factory import build_model
from dia_models.files import write_atomically
from dia_models.spec import ModelSpec, Network
from dia_models.training.machine import Machine

LARGEST_FILE = 8 * 2**30
LARGEST_HEADER = 16 * 2**20
_INFO_KEY, _DIGEST_KEY = "dia", "dia.sha256"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class CheckpointInfo(BaseModel):
    """What a checkpoint's header says about the network in it; `epoch` is given where a run kept its epochs.

    `machine` is None where it was not recorded. The time that training took is in the run's result only, so that the
    same run writes the same file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_name: Literal["dia.checkpoint/1"] = "dia.checkpoint/1"
    model: ModelSpec
    data: str = Field(max_length=4096)
    classes: tuple[str, ...] = Field(max_length=1_000_000)
    preprocessing: Preprocessing
    recipe: dict[str, bool | int | float | str] = {}
    metrics: dict[str, float] = {}
    seed: int = 0
    epoch: int | None = Field(default=None, ge=0)
    versions: dict[str, str] = {}
    machine: Machine | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "CheckpointInfo":
        if len(self.classes) != (self.model.num_classes or 0):
            raise ValueError(f"{len(self.classes)} class names for {self.model.num_classes} classes")
        if len(self.preprocessing.mean) != self.model.in_channels:
            raise ValueError(f"{len(self.preprocessing.mean)} means for {self.model.in_channels} input channels")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that was read and found whole: `path` is where, `sha256` that of the file."""

    name: str
    info: CheckpointInfo
    weights: dict[str, Tensor]
    sha256: str
    path: Path

    @classmethod
    def read(cls, source: str | Path) -> "Checkpoint":
        """Read a checkpoint; nothing in the file is executed.

        Args:
            source: A path, or the name of a bundled checkpoint (`list_checkpoints`).

        Raises:
            ModelInputError: If there is no such file or name, or if the file is damaged or no checkpoint of ours.
        """
        try:
            path = locate_checkpoint(source)
            content = _content(path)
        except OSError as error:  # no permission
            raise ModelInputError("ckpt", f"{source} cannot be read: {error}") from error
        return cls(path.stem, *_parse(path, content), hashlib.sha256(content).hexdigest(), path)

    def origin(self) -> dict[str, Any]:
        """Which network it is and how it was trained, as the document dia.eval/1 has it."""
        info = self.info
        return {
            "checkpoint": self.name,
            "checkpoint_sha256": self.sha256,
            "network": info.model.name,
            "training_seed": info.seed,
            "machine": None if info.machine is None else info.machine.model_dump(),
        }

    def build(self) -> Network:
        """Build the network with the checkpoint's weights, in evaluation mode.

        Raises:
            ModelInputError: If the weights do not fit it.
        """
        spec = self.info.model
        try:
            with torch.device("meta"):  # takes no memory and draws no random number before the shapes are known to fit
                model = build_model(spec)
        except ModelInputError as error:
            raise ModelInputError("ckpt", f"{self.name}: {error}") from error
        expected = {name: (t.shape, t.dtype) for name, t in model.state_dict().items()}
        found = {name: (t.shape, t.dtype) for name, t in self.weights.items()}
        if expected != found:
            odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ModelInputError(
                "ckpt",
                f"{self.name}: its weights do not fit {spec.name}; {len(odd)} differ, the first is {odd[0]!r}",
            )
        model.load_state_dict({name: t.clone() for name, t in self.weights.items()}, assign=True)
        return model.eval()


def load(source: str | Path) -> Network:
    """Rebuild a trained network.

    Args:
        source: A checkpoint's path, or the name of a bundled one (`list_checkpoints`).

    Returns:
        The network, in evaluation mode on the CPU.

    Raises:
        ModelInputError: As `Checkpoint.read`, and if the weights do not fit the network.
    """
    return Checkpoint.read(source).build()


def save_checkpoint(path: str | Path, model: nn.Module, info: CheckpointInfo) -> None:
    """Write a network's weights and description to one file, at once or not at all.

    Args:
        path: The file, replaced if it exists; `.safetensors` by custom.
        model: The network; its spec should be `info.model`.
        info: What the header is to say.

    Raises:
        OSError: If the file cannot be written.
    """
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    description = info.model_dump_json()
    metadata = {_INFO_KEY: description, _DIGEST_KEY: _digest(description, weights)}
    write_atomically(Path(path), _in_fixed_order(save_tensors(weights, metadata)))


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ModelInputError("ckpt", f"{path} has {size / 2**30:.1f} GiB; at most 8 are read")
    return path.read_bytes()


def _parse(path: Path, content: bytes) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    if content.startswith(_PICKLE_STARTS):
        raise ModelInputError(
            "ckpt",
            f"{path} is a pickled PyTorch file, which could run code when opened; "
            "give a .safetensors file, as dia-train fit writes it",
        )
    metadata = _metadata(path, content)
    if _INFO_KEY not in metadata:
        raise ModelInputError(
            "ckpt",
            f"{path} is a safetensors file, but its header does not say which network it holds; "
            "a checkpoint is what dia-train fit writes",
        )
    try:
        weights = load_tensors(content)
        info = CheckpointInfo.model_validate_json(metadata[_INFO_KEY])
    except ValidationError as error:
        place, _, reason = first_problem(error, "the description")
        raise _damaged_error(path, f"in its header, {place}: {reason}") from error
    except (SafetensorError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise _damaged_error(path, str(error).splitlines()[0]) from error
    if metadata.get(_DIGEST_KEY) != _digest(metadata[_INFO_KEY], weights):
        raise _damaged_error(path, "its content does not have the checksum in its header")
    return info, weights


def _metadata(path: Path, content: bytes) -> dict[str, str]:
    """The header's metadata: a safetensors file starts with the header's length, then the header as JSON."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else LARGEST_HEADER + 1
    if length > min(LARGEST_HEADER, len(content) - 8):
        raise _damaged_error(path, "it is no safetensors file, or was cut off")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata: Any = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _damaged_error(path, "its header cannot be read") from error


def _in_fixed_order(content: bytes) -> bytes:
    """The same file with the metadata sorted: safetensors writes them in an order that changes from call to call."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _damaged_error(path: Path, reason: str) -> ModelInputError:
    return ModelInputError("ckpt", f"{path} is damaged or no checkpoint: {reason}")


def _digest(description: str, weights: dict[str, Tensor]) -> str:
    """A checksum of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
