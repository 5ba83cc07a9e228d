"""Networks by name: `<backbone>[_<attention>]`."""

import re
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from dia_models.attention import AttentionKind, attention_kind, attention_names
from dia_models.cifar_resnet import CifarResNet
from dia_models.errors import ModelInputError, unknown
from dia_models.network import ModelSpec, Network

LISTED_DEPTHS = (20, 29, 56, 83, 110, 164, 245, 326, 407)
_NAME = re.compile(r"cifar_resnet(?P<depth>\d{1,6})(?:_(?P<attention>\w+))?", re.ASCII)


def list_models(pattern: str = "*") -> list[str]:
    """The model names that match a shell pattern such as `*resnet164*`.

    `cifar_resnet` exists for every depth 9n + 2; the usual depths are listed.
    """
    backbones = [f"cifar_resnet{depth}" for depth in LISTED_DEPTHS]
    names = [f"{b}{a}" for b in backbones for a in ("", *(f"_{name}" for name in attention_names()))]
    return [name for name in names if fnmatchcase(name, pattern)]


def create_model(
    name: str, *, num_classes: int = 10, in_channels: int = 3, **options: bool | int | float | str
) -> Network:
    """Build a network with random weights, drawn from torch's global random generator.

    `name` is `<backbone>[_<attention>]`, as `list_models` lists them; `options` are the attention's, such as
    `reduction=4`. The result carries its `ModelSpec` as `.spec`. Raises ModelInputError for a name or an option
    that does not exist, and for a value that cannot be.
    """
    try:
        spec = ModelSpec(name=name, num_classes=num_classes, in_channels=in_channels, options=options)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelInputError(str(first["loc"][0]), f"{first['input']!r}: {first['msg']}") from error
    return build_model(spec)


def build_model(spec: ModelSpec) -> Network:
    """As `create_model`, from a description."""
    match = _NAME.fullmatch(spec.name)
    if match is None:
        raise unknown("model", spec.name, list_models())
    depth, attention = int(match["depth"]), match["attention"]
    kind = None if attention is None else _attention_of(spec.name, attention)
    _check_options(spec.name, spec.options, kind)
    model = CifarResNet(depth, kind, spec.num_classes, spec.in_channels, **spec.options)
    model.spec = spec
    return model


def _attention_of(name: str, attention: str) -> AttentionKind:
    if attention not in attention_names():
        backbone = name.removesuffix(f"_{attention}")
        raise unknown("model", name, [backbone, *(f"{backbone}_{a}" for a in attention_names())])
    return attention_kind(attention)


def _check_options(name: str, options: dict[str, Any], kind: AttentionKind | None) -> None:
    accepted = kind.options() if kind else {}
    for option, value in options.items():
        if option not in accepted:
            if not accepted:
                raise ModelInputError("set", f"{name} has no options, but {option}={value} was given")
            raise unknown("set", option, accepted)
        expected = type(accepted[option])
        if type(value) is not expected:
            raise ModelInputError("set", f"{option} must be of type {expected.__name__}, not {value!r}")
