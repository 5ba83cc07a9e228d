"""Weights from elsewhere: state dicts of public code, renamed to ours."""

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.checkpoints.state_dict import read_state_dict
from dia_models.data import CIFAR_MEAN, CIFAR_STD, Preprocessing
from dia_models.errors import ModelInputError, one_line, some
from dia_models.factory import create_model, require_classifier
from dia_models.spec import Network

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTERS = ("n_averaged",)  # of torch's averaged models, beside the weights
DEEPEST_PREFIX = 4  # as in `model._orig_mod.module.net.conv1.weight`


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


_DIANET_BLOCK = r"(?:layer|block|stage_)(\d)\.(?:ModuleList\.|stage_\d_bottleneck_)?(\d+)"
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


def build_public(name: str, state: dict[str, Tensor]) -> Network:
    """One of our networks by name, with a public state dict's weights and as many classes as these have.

    Raises ModelInputError as `load_public` does.
    """
    require_classifier(name, "model")
    ours = _translate(name, state)
    if "classifier.weight" not in ours:
        raise ModelInputError("source", f"the weights have no classifier; found: {some(state)}")
    model = create_model(name, num_classes=len(ours["classifier.weight"]))
    _load(model, ours)
    return model


def load_public(model: Network, state: dict[str, Tensor]) -> None:
    """Load a public state dict into one of our networks, renaming its keys.

    Known are those of gbup-group/DIANet (ResNet, PreResNet, WRN, ResNeXt, with or without DIA), of the code it is
    built on, and of pytorchcv (`resnet*bn_*`, `seresnet*bn_*`, `diaresnet*bn_*` for CIFAR). What stands before the
    names, such as `module.`, `model.` or `_orig_mod.`, is found; what is under other names is left out, with a warning.
    Raises ModelInputError if a name is unknown, or if the tensors are not those of the network.
    """
    _load(model, _translate(model.spec.name, state))


def _translate(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names."""
    backbone = next((b for b in FAMILIES if name.startswith(b)), None)
    if backbone is None:
        raise ModelInputError(
            "model", f"no public weights are known for {name}; known are those of {some(FAMILIES, 9)}"
        )
    family, prefix = max((_prefix(family, state) for family in FAMILIES[backbone]), key=lambda found: found[2])[:2]
    inside = {theirs: family.rename(theirs.removeprefix(prefix)) for theirs in state if theirs.startswith(prefix)}
    if unknown := [theirs for theirs, ours in inside.items() if ours is None]:
        under = f" under {prefix!r}" if prefix else ""
        raise ModelInputError(
            "source",
            f"{len(unknown)} of {len(inside)} names{under} are unknown, first {one_line(some(unknown), 120)}; "
            "known are those of gbup-group/DIANet, of the code it is built on, and of pytorchcv",
        )
    if others := [theirs for theirs in state if theirs not in inside and theirs not in COUNTERS]:
        warnings.warn(
            f"the weights under {prefix!r} are taken; {len(others)} of {len(state)} tensors have other names and are "
            f"left out: {some(others)}",
            stacklevel=3,
        )
    return _rename(state, {theirs: ours for theirs, ours in inside.items() if ours is not None})


def _prefix(family: Family, state: dict[str, Tensor]) -> tuple[Family, str, int]:
    """What stands before a family's names in a state dict, and how many names it then knows."""
    known = Counter({"": 0})
    for name in state:
        parts = name.split(".")
        for depth in range(min(DEEPEST_PREFIX + 1, len(parts))):
            if family.rename(".".join(parts[depth:])) is not None:
                known["".join(f"{part}." for part in parts[:depth])] += 1
    prefix, count = known.most_common(1)[0]
    return family, prefix, count


def _rename(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
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
    odd = []
    for name in sorted(expected.keys() & state.keys()):
        theirs, ours = (tuple(t.shape) for t in (state[name], expected[name]))
        if [n for n in theirs if n != 1] != [n for n in ours if n != 1]:  # a linear layer may be a 1x1 convolution
            odd.append(f"{name} has shape {theirs}, not {ours}")
    odd += [f"{name} is in one of them only" for name in sorted(expected.keys() ^ state.keys())]
    if odd:
        raise ModelInputError(
            "source",
            f"these are not the weights of {model.spec.name}: {len(odd)} of {len(expected)} tensors differ, "
            f"first {one_line(odd[0], 120)}",
        )
    model.load_state_dict({name: tensor.reshape(expected[name].shape) for name, tensor in state.items()})


def public_checkpoint(name: str, path: Path, versions: dict[str, str]) -> tuple[Network, CheckpointInfo]:
    """A CIFAR network with weights of public code, and its description; `versions` are of what is installed.

    Raises ModelInputError for a file that is no state dict, and for weights of another network.
    """
    network = build_public(name, read_state_dict(path, "source").tensors)
    classes = len(network.state_dict()["classifier.weight"])
    return network, CheckpointInfo(
        model=network.spec,
        data=f"cifar{classes}",
        classes=CIFAR10 if classes == 10 else tuple(map(str, range(classes))),
        preprocessing=Preprocessing(height=32, width=32, mean=CIFAR_MEAN, std=CIFAR_STD),
        recipe={"imported_from": path.name},
        versions=versions,
    )
