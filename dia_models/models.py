"""Networks by name: `<backbone>[_<attention>]`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from pydantic import ValidationError

from dia_models.attention import AttentionKind, attention_kind, attention_names
from dia_models.attention.registry import check_options
from dia_models.cifar_preresnet import cifar_preresnet
from dia_models.cifar_resnet import cifar_resnet
from dia_models.cifar_resnext import cifar_resnext101_8x32
from dia_models.cifar_wrn import cifar_wrn
from dia_models.errors import ModelInputError, unknown
from dia_models.network import ModelSpec, Network, Option
from dia_models.residual import BlockOptions
from dia_models.stage import AttentionPlan

RESIDUAL_OPTIONS: dict[str, Option] = {"skip": True, "batch_norm": True, "attention_stages": (), "attention_blocks": ()}


@dataclass(frozen=True)
class Backbone:
    """A family of networks: how its names look, how one is built, and the members that are listed."""

    pattern: str
    build: Callable[..., Network]
    listed: tuple[str, ...]


BACKBONES = (
    Backbone(
        r"cifar_resnet(?P<depth>\d{1,6})",
        cifar_resnet,
        tuple(f"cifar_resnet{depth}" for depth in (20, 29, 56, 83, 110, 164, 245, 326, 407)),
    ),
    Backbone(r"cifar_preresnet(?P<depth>\d{1,6})", cifar_preresnet, ("cifar_preresnet164",)),
    Backbone("cifar_wrn52_4", partial(cifar_wrn, depth=52, width=4), ("cifar_wrn52_4",)),
    Backbone("cifar_resnext101_8x32", cifar_resnext101_8x32, ("cifar_resnext101_8x32",)),
)


def list_models(pattern: str = "*") -> list[str]:
    """The model names that match a shell pattern such as `*resnet164*`.

    `cifar_resnet` and `cifar_preresnet` exist for every depth 9n + 2; the usual depths are listed.
    """
    backbones = [name for backbone in BACKBONES for name in backbone.listed]
    names = [f"{b}{a}" for b in backbones for a in ("", *(f"_{name}" for name in attention_names()))]
    return [name for name in names if fnmatchcase(name, pattern)]


def create_model(name: str, *, num_classes: int = 10, in_channels: int = 3, **options: Option) -> Network:
    """Build a network with random weights, drawn from torch's global random generator.

    `name` is `<backbone>[_<attention>]`, as `list_models` lists them. `options` are those of the attention, such as
    `reduction=4`, and of the backbone: `skip=False` leaves the skip connections out, `batch_norm=False` the batch
    norms (but those of the shortcuts), `attention_stages` and `attention_blocks` say which stages, and which
    blocks of a stage, have attention (counted from 1; all by default).
    The result carries its `ModelSpec` as `.spec`. Raises ModelInputError for a name or an option that does not
    exist, and for a value that cannot be.
    """
    try:
        spec = ModelSpec(name=name, num_classes=num_classes, in_channels=in_channels, options=options)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelInputError(str(first["loc"][0]), f"{first['input']!r}: {first['msg']}") from error
    return build_model(spec)


def build_model(spec: ModelSpec) -> Network:
    """As `create_model`, from a description."""
    backbone, parameters, kind = _parse(spec.name)
    options = {**RESIDUAL_OPTIONS, **_checked(spec, kind)}
    skip, batch_norm, stages, blocks = (options.pop(name) for name in RESIDUAL_OPTIONS)
    plan = AttentionPlan(kind, options, stages, blocks)
    block_options = BlockOptions(skip, batch_norm, plan.normalised_branch)
    model = backbone.build(plan, block_options, spec.num_classes, spec.in_channels, **parameters)
    model.spec = spec
    return model


def without_attention(spec: ModelSpec) -> ModelSpec:
    """The description of the same backbone with the same options, but without attention."""
    _, _, kind = _parse(spec.name)
    if kind is None:
        return spec
    gone = {*kind.options(), "attention_stages", "attention_blocks"}
    options = {key: value for key, value in spec.options.items() if key not in gone}
    return spec.model_copy(update={"name": spec.name.removesuffix(f"_{kind.name}"), "options": options})


def _parse(name: str) -> tuple[Backbone, dict[str, int], AttentionKind | None]:
    for backbone in BACKBONES:
        match = re.fullmatch(rf"({backbone.pattern})(?:_(?P<attention>\w+))?", name, re.ASCII)
        if match is None:
            continue
        attention = match["attention"]
        if attention is not None and attention not in attention_names():
            raise unknown("model", name, [match[1], *(f"{match[1]}_{a}" for a in attention_names())])
        parameters = {k: int(v) for k, v in match.groupdict().items() if k != "attention"}
        return backbone, parameters, None if attention is None else attention_kind(attention)
    raise unknown("model", name, list_models())


def _checked(spec: ModelSpec, kind: AttentionKind | None) -> dict[str, Any]:
    """The options given, each of a known name and of the type of its default."""
    accepted = {**RESIDUAL_OPTIONS, **(kind.options() if kind else {})}
    check_options("set", spec.options, accepted)
    return dict(spec.options)
