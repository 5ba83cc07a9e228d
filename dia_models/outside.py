"""Weights from elsewhere: state dicts of public code, renamed to ours."""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dia_models.checkpoint import LARGEST_FILE
from dia_models.errors import ModelInputError
from dia_models.network import Network

WRAPPERS = ("state_dict", "model", "net")


@dataclass(frozen=True)
class Family:
    """One library's names for one kind of network: patterns for parts of a name, and what they are called here.

    A block's name gives its stage and block numbers, counted from `first_block`; stages are counted from 1.
    """

    top: dict[str, str]
    block: str
    parts: dict[str, str]
    first_block: int = 0

    def rename(self, name: str) -> str | None:
        """Our name for a parameter or buffer; None if this family does not have it."""
        for theirs, ours in self.top.items():
            if match := re.fullmatch(rf"{theirs}\.(\w+)", name):
                return f"{ours}.{match[1]}"
        if match := re.fullmatch(rf"{self.block}\.(.+)\.(\w+)", name):
            stage, block = int(match[1]) - 1, int(match[2]) - self.first_block
            for theirs, ours in self.parts.items():
                if re.fullmatch(theirs, match[3]):
                    place = f"stages.{stage}.{re.sub(theirs, ours, match[3])}"
                    return f"{place}.{match[4]}".replace("{block}", str(block))
        if match := re.fullmatch(r"(?:layer|block|stage_)(\d)\.lstm\.w_(ih|hh)\.(\d+)(?:\.seq\.(\d))?\.(\w+)", name):
            gates = {"ih": "input_gates", "hh": "hidden_gates"}[match[2]]
            layer = f".{match[4]}" if match[4] else ""
            return f"stages.{int(match[1]) - 1}.attention.cells.{match[3]}.{gates}{layer}.{match[5]}"
        return None


def _branch(**places: int | str) -> dict[str, str]:
    return {
        name: f"blocks.{{block}}.{f'branch.{place}' if isinstance(place, int) else place}"
        for name, place in places.items()
    }


_DIANET_BLOCK = r"(?:layer|block|stage_)(\d)\.(?:ModuleList\.)?(\d+)"
_POST = _branch(conv1=0, bn1=1, conv2=3, bn2=4, conv3=6, bn3=7)
_PRE = _branch(bn1=0, conv1=2, bn2=3, conv2=5, bn3=6, conv3=8, bn_additional=9)
FAMILIES = {
    "cifar_resnet": (
        Family(  # gbup-group/DIANet and bearpaw/pytorch-classification
            {"conv1": "stem.0", "bn1": "stem.1", "fc": "classifier"},
            _DIANET_BLOCK,
            {**_POST, r"downsample\.(\d)": r"blocks.{block}.shortcut.\1"},
        ),
        Family(  # pytorchcv; the LSTM that a stage shares is listed under each of its blocks
            {
                r"features\.init_block\.conv": "stem.0",
                r"features\.init_block\.bn": "stem.1",
                "output": "classifier",
            },
            r"features\.stage(\d)\.unit(\d+)",
            {
                **{rf"body\.conv{n}\.conv": f"blocks.{{block}}.branch.{3 * n - 3}" for n in (1, 2, 3)},
                **{rf"body\.conv{n}\.bn": f"blocks.{{block}}.branch.{3 * n - 2}" for n in (1, 2, 3)},
                r"identity_conv\.conv": "blocks.{block}.shortcut.0",
                r"identity_conv\.bn": "blocks.{block}.shortcut.1",
                r"se\.conv1": "attention.{block}.excitation.0",
                r"se\.conv2": "attention.{block}.excitation.2",
                r"attention\.lstm\.x_amps\.amp1\.fc1": "attention.cells.0.input_gates.0",
                r"attention\.lstm\.x_amps\.amp1\.fc2": "attention.cells.0.input_gates.2",
                r"attention\.lstm\.h_amps\.amp1\.fc1": "attention.cells.0.hidden_gates.0",
                r"attention\.lstm\.h_amps\.amp1\.fc2": "attention.cells.0.hidden_gates.2",
            },
            first_block=1,
        ),
    ),
    "cifar_preresnet": (
        Family(
            {"conv1": "stem", "bn": "tail.0", "fc": "classifier"},
            _DIANET_BLOCK,
            {**_PRE, r"downsample\.0": "blocks.{block}.shortcut"},
        ),
    ),
    "cifar_wrn": (
        Family(
            {"conv1": "stem", "bn1": "tail.0", "fc": "classifier"},
            r"block(\d)\.(?:ModuleList|layer)\.(\d+)",
            _branch(bn1="prepare.0", conv1=0, bn2=1, conv2=4, bn_additional=5, convShortcut="shortcut"),
        ),
    ),
    "cifar_resnext": (
        Family(
            {"conv_1_3x3": "stem.0", "bn_1": "stem.1", "classifier": "classifier"},
            _DIANET_BLOCK,
            {
                **_branch(conv_reduce=0, bn_reduce=1, conv_conv=3, bn=4, conv_expand=6, bn_expand=7),
                r"shortcut\.shortcut_conv": "blocks.{block}.shortcut.0",
                r"shortcut\.shortcut_bn": "blocks.{block}.shortcut.1",
            },
        ),
    ),
}


def load_outside(model: Network, state: dict[str, Tensor]) -> None:
    """Load a public state dict into one of our networks, renaming its keys.

    Known are those of gbup-group/DIANet (ResNet, PreResNet, WRN, ResNeXt, with or without DIA), of the code it is
    built on, and of pytorchcv (`resnet*bn_*`, `seresnet*bn_*`, `diaresnet*bn_*` for CIFAR).
    Raises ModelInputError if a name is unknown, or if the tensors are not those of the network.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    backbone = next((b for b in FAMILIES if model.spec.name.startswith(b)), None)
    families = FAMILIES.get(backbone or "", ())
    renamings = [{name: family.rename(name) for name in state} for family in families]
    if not renamings:
        raise ModelInputError("model", f"no public weights are known for {model.spec.name}")
    names = min(renamings, key=lambda names: sum(ours is None for ours in names.values()))
    if unknown := [name for name, ours in names.items() if ours is None]:
        raise ModelInputError(
            "source", f"{len(unknown)} of {len(names)} names are unknown, the first is {unknown[0]!r}"
        )
    _load(model, _renamed(state, {name: ours for name, ours in names.items() if ours is not None}))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a pickled state dict, alone or under `state_dict`, without executing anything in it.

    Raises ModelInputError for a file that is none, or that holds more than tensors and plain values.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelInputError("source", f"{path} has more than 8 GiB")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelInputError(
            "source", f"{path} is not read, since it holds more than tensors: {_first(error)}"
        ) from error
    except ModelInputError:
        raise
    except Exception as error:  # the restricted unpickler can stumble over anything in a foreign file
        raise ModelInputError("source", f"{path} cannot be read: {_first(error)}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise ModelInputError("source", f"{path} holds no state dict")
    return {str(name): tensor for name, tensor in content.items()}


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        if ours in renamed and not torch.equal(renamed[ours], state[theirs]):
            raise ModelInputError("source", f"{theirs} should be shared by the layers of a stage, but differs")
        renamed[ours] = state[theirs]
    return renamed


def _load(model: Network, state: dict[str, Tensor]) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):  # unknown to old versions of torch
            state.setdefault(name, torch.zeros_like(tensor))
    odd = sorted(expected.keys() ^ state.keys())
    odd += [n for n in sorted(expected.keys() & state.keys()) if expected[n].numel() != state[n].numel()]
    if odd:
        raise ModelInputError(
            "source",
            f"these are not the weights of {model.spec.name}: {len(odd)} tensors differ, the first is {odd[0]}",
        )
    model.load_state_dict({name: tensor.reshape(expected[name].shape) for name, tensor in state.items()})


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
