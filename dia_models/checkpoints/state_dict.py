"""Weights from elsewhere: the state dict in a file, read without executing anything in it."""

import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dia_models.checkpoints.checkpoint import LARGEST_FILE
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError, one_line, some

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar")
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("model_ema", "ema", "ema_state_dict", "state_dict_ema", "params_ema"),
)
NO_INSIDE = {  # what torch's errors say of files that hold code in place of weights
    "TorchScript": "a TorchScript file",
    "locating file data.pkl": "an exported program or another archive",
}


class _Unused:
    """Stands for an object in a checkpoint that is no weight, such as the best accuracy: nothing of it is built."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


PASSED_OVER: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Unused, name)
    for name in (
        *("numpy.dtype", "numpy.ndarray"),
        *(f"numpy.{c}.multiarray.{f}" for c in ("core", "_core") for f in ("scalar", "_reconstruct")),
        "argparse.Namespace",
        *(f"{m}.{kind}Path" for m in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")),
    )
]
"""What published checkpoints often hold beside the weights: numbers and arrays of numpy, a command's options, paths."""


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and where they are: the file, and the entry in it (empty if it holds nothing else)."""

    path: Path
    entry: str
    tensors: dict[str, Tensor]

    @property
    def place(self) -> str:
        """The file's name, and the entry."""
        return f"{self.path.name}, {self.entry}" if self.entry else self.path.name


def read_state_dict(path: Path, argument: str = "weights") -> StateDict:
    """Read the state dict in a file: safetensors, or what torch.save writes, alone or under `state_dict` and the like.

    Raises ModelInputError, which names the argument, for a file that is none, that has more than 8 GiB, or that holds
    more than tensors and plain values.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelInputError(argument, f"{path} cannot be read: {error.strerror}; give a file of weights") from error
    if path.suffix.lower() not in SUFFIXES:
        raise ModelInputError(argument, f"{path} is not a file of weights; accepted: {', '.join(SUFFIXES)}")
    if size > LARGEST_FILE:
        raise ModelInputError(argument, f"{path} has {size / 2**30:.1f} GiB; at most {LARGEST_FILE >> 30} are read")
    if path.suffix.lower() == ".safetensors":
        return StateDict(path, "", _safetensors(path, argument))
    return _unwrapped(path, _unpickled(path, argument), argument)


def _safetensors(path: Path, argument: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelInputError(argument, f"{path} is damaged or no safetensors file: {one_line(error, 150)}") from error
    if not tensors:
        raise ModelInputError(argument, f"{path} holds no tensors")
    return tensors


def _unpickled(path: Path, argument: str) -> Any:
    try:
        with torch.serialization.safe_globals(PASSED_OVER), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file that torch.save did not write, or that holds code
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelInputError(argument, _refused(path, error)) from error
    except Exception as error:  # the restricted unpickler can stumble over anything in a foreign file
        text = (
            _without_weights(path, error)
            or f"{path} is empty, damaged or not written by torch.save; give a file of weights"
        )
        raise ModelInputError(argument, text) from error


def _without_weights(path: Path, error: Exception) -> str | None:
    """What to say of a file that holds code in place of weights; None of any other."""
    kind = next((kind for text, kind in NO_INSIDE.items() if text in str(error)), None)
    return None if kind is None else f"{path} is {kind}, from which no weights are read; save its network's state_dict"


def _refused(path: Path, error: pickle.UnpicklingError) -> str:
    """What the restricted unpickler does not take, and how to save what it does."""
    if (text := _without_weights(path, error)) is not None:
        return text
    reason = str(error).rpartition("WeightsUnpickler error:")[2]
    if "Unsupported operand" in reason:
        return f"{path} is not read, since it is no file that torch.save writes; save its state_dict alone"
    name = re.search(r"GLOBAL ([\w.]+)", reason)
    held = one_line(reason if name is None else name[1], 80)
    place = _entry(path)
    if place is None:
        return f"{path} is not read, since it holds more than tensors: {held}; save its state_dict alone, and give that"
    whole = place.endswith("state_dict()")
    what = f"a whole network (a pickled {held}), not its weights" if whole else f"more than tensors: {held}"
    how = f"torch.save(torch.load({path.name!r}, weights_only=False){place}, 'weights.pth')"
    return f"{path.name} is not read, since it holds {what}. Where its code is, run {how}, and give that"


def _entry(path: Path) -> str | None:
    """How the state dict in a file is got at where its objects can be built; None if that is not known.

    Here none is: every name in the file stands for nothing.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Unused, name) for name in names]):
            content = torch.load(path, map_location="meta", weights_only=True)
    except Exception:
        return None
    if isinstance(content, _Unused):
        return ".state_dict()"
    if not isinstance(content, dict):
        return None
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), _Unused):
            return f"[{wrapper!r}].state_dict()"
        if isinstance(content.get(wrapper), dict):
            return f"[{wrapper!r}]"
    return None


def _wrapper(content: dict[Any, Any]) -> Any:
    """The entry that holds the weights: one of the usual names, or the only one with tensors in it."""
    usual = next((w for w in WRAPPERS if isinstance(content.get(w), dict)), None)
    if usual is not None or any(isinstance(value, Tensor) for value in content.values()):
        return usual
    others = [name for name, value in content.items() if _holds_tensors(value)]
    return others[0] if len(others) == 1 else None


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(value, Tensor) for value in content.values())


def _unwrapped(path: Path, content: Any, argument: str) -> StateDict:
    entries = []
    while isinstance(content, dict) and (wrapper := _wrapper(content)) is not None:
        others = [w for w in WRAPPERS if w != wrapper and _holds_tensors(content.get(w))]
        if others and _holds_tensors(content[wrapper]):
            warn_once(
                f"{path.name} holds several sets of weights: {wrapper} is read, {some(others)} is not; to have that, "
                "save its state dict alone"
            )
        content = content[wrapper]
        entries.append(str(wrapper))
    found = {str(name): t for name, t in content.items() if isinstance(t, Tensor)} if isinstance(content, dict) else {}
    if not found:
        inside = f"its entries are {some(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise ModelInputError(argument, f"{path} holds no state dict, alone or under {some(WRAPPERS)}: {inside}")
    return StateDict(path, ".".join(entries), found)
