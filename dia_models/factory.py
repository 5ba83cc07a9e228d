"""Networks by name: `<backbone>[_<attention>]`."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import ValidationError

from dia_models.attention import AttentionKind, attention_kind, attention_names
from dia_models.attention.registry import CONSTANT, check_options
from dia_models.backbones.registry import BACKBONES, DEFAULT_CLASSES, DETECTOR_OPTIONS, Backbone, Task
from dia_models.backbones.stage import AttentionPlan
from dia_models.errors import ModelInputError, first_problem, unknown
from dia_models.spec import ModelSpec, Network, Option

AttentionWords = Literal["one module per layer", "shared", "DIA-LSTM", "DIA-LSTM (Light)"]
LISTING = "dia-train models"
PLAN_OPTIONS: dict[str, Option] = {"attention_stages": (), "attention_blocks": (), "attention_folded": ""}


def list_models(pattern: str = "*") -> list[str]:
    """The model names that match a pattern.

    `cifar_resnet` and `cifar_preresnet` exist for every depth 9n + 2; the usual depths are listed.

    Args:
        pattern: A shell pattern such as `*resnet164*`.

    Returns:
        The names, backbone by backbone, each first without attention.
    """
    names = [
        f"{name}{attention}"
        for backbone in BACKBONES
        for name in backbone.listed
        for attention in ("", *(f"_{name}" for name in backbone.attention_names()))
    ]
    return [name for name in names if fnmatchcase(name, pattern)]


def create_model(name: str, *, num_classes: int | None = None, in_channels: int = 3, **options: Option) -> Network:
    """Build a network with random weights, drawn from torch's global random generator.

    Args:
        name: `<backbone>[_<attention>]`, as `list_models` lists them.
        num_classes: 10 by default, for detectors 91 with the background; a network that predicts noise takes none.
        in_channels: Channels of the images.
        **options: Those of the attention, such as `reduction=4`, and of the backbone. `skip=False` leaves the skip
            connections out, `batch_norm=False` the batch norms (but those of the shortcuts); `attention_stages` and
            `attention_blocks` say which stages, and which blocks of a stage, have attention (counted from 1, all by
            default); `attention_folded` names layers whose gate was folded away (`fold_attention`); `image_size` is
            that of a transformer, in pixels.

    Returns:
        The network, in training mode, with its `ModelSpec` as `.spec`. A classifier takes images (batch, in_channels,
        height, width) and gives logits (batch, num_classes).

    Raises:
        ModelInputError: For a name or an option that does not exist, and for a value that cannot be.
    """
    try:
        spec = ModelSpec(name=name, num_classes=num_classes, in_channels=in_channels, options=options)
    except ValidationError as error:
        place, given, reason = first_problem(error)
        raise ModelInputError(place.partition(".")[0], f"{given!r}: {reason}") from error
    return build_model(spec)


@dataclass(frozen=True)
class Blueprint:
    """A description taken apart: what the backbone's builder is given, and the plan for the attention."""

    spec: ModelSpec
    backbone: Backbone
    inputs: dict[str, Any]
    plan: AttentionPlan

    @property
    def backbone_key(self) -> tuple[Any, ...]:
        """The same for networks that differ in the kind of attention only."""
        plan = self.plan
        place = (plan.kind is None, plan.normalized_branch, plan.stages, plan.blocks)
        return (self.backbone.pattern, *self.inputs.items(), self.spec.num_classes, self.spec.in_channels, *place)

    def build(self, plan: AttentionPlan) -> Network:
        """The network."""
        return self.backbone.build(plan, self.spec.num_classes, self.spec.in_channels, **self.inputs)


def blueprint(spec: ModelSpec) -> Blueprint:
    """Take a description apart. Raises ModelInputError for what no network of the name has."""
    backbone, parts, kind = _parse(spec.name)
    spec = spec.model_copy(update={"num_classes": _classes(spec, backbone)})
    given = _check_spec_options(spec, backbone, kind)
    place = {name: given.pop(name, default) for name, default in PLAN_OPTIONS.items()}
    own = {name: given.pop(name, default) for name, default in backbone.options.items()}
    plan = AttentionPlan(kind, given, place["attention_stages"], place["attention_blocks"], place["attention_folded"])
    if plan.folded and backbone.task == "noise prediction":
        raise ModelInputError("set", f"attention_folded: the attention of {spec.name} cannot be folded")
    return Blueprint(spec, backbone, {**parts, **own}, plan)


def build_model(spec: ModelSpec) -> Network:
    """Build a network from its description.

    Args:
        spec: Its name, classes, input channels and options.

    Returns:
        The network with random weights, as `create_model` gives it.

    Raises:
        ModelInputError: As `create_model`.
    """
    plans = blueprint(spec)
    model = plans.build(plans.plan)
    model.spec = plans.spec
    return model


def without_attention(spec: ModelSpec) -> ModelSpec:
    """The description of the same backbone with the same options, but without attention."""
    _, _, kind = _parse(spec.name)
    if kind is None:
        return spec
    gone = {*kind.options(), *PLAN_OPTIONS}
    options = {key: value for key, value in spec.options.items() if key not in gone}
    return spec.model_copy(update={"name": spec.name.removesuffix(f"_{kind.name}"), "options": options})


def attention_words(spec: ModelSpec) -> AttentionWords | None:
    """How a network's attention is shared, in words; None for one without, or with the same gates for all images."""
    _, _, kind = _parse(spec.name)
    if kind is None or kind.name.startswith(CONSTANT):
        return None
    if kind.name.startswith("dia_lstm"):
        return "DIA-LSTM (Light)" if kind.name == "dia_lstm_light" else "DIA-LSTM"
    return "shared" if kind.shared else "one module per layer"


def classifier_of(spec: ModelSpec) -> ModelSpec:
    """The description of the classifier that a detector has inside, with as many classes."""
    body = re.sub(r"^[a-z]+_(resnet\d+)_fpn", r"\1", spec.name)
    options = {key: value for key, value in spec.options.items() if key not in DETECTOR_OPTIONS}
    return spec.model_copy(update={"name": body, "options": options})


def task_of(name: str) -> Task:
    """What a network of this name does. Raises ModelInputError for an unknown name."""
    return _parse(name)[0].task


def require_classifier(name: str, argument: str) -> None:
    """Raise ModelInputError, naming the argument, unless a network of this name classifies images."""
    if (task := task_of(name)) != "classification":
        raise ModelInputError(argument, f"{name} is a network for {task}; a classifier is needed here")


def _parse(name: str) -> tuple[Backbone, dict[str, int], AttentionKind | None]:
    for backbone in BACKBONES:
        match = re.fullmatch(rf"({backbone.pattern})(?:_(?P<attention>\w+))?", name, re.ASCII)
        if match is None:
            continue
        attention = match["attention"]
        parts = {k: int(v) for k, v in match.groupdict().items() if k != "attention"}
        return backbone, parts, None if attention is None else _kind(backbone, match[1], attention)
    raise unknown("model", name, list_models(), listed_by=LISTING)


def _kind(backbone: Backbone, name: str, attention: str) -> AttentionKind:
    suited = backbone.attention_names()
    if attention in suited:
        return attention_kind(attention)
    if attention not in attention_names():
        raise unknown(
            "model", f"{name}_{attention}", [name, *(f"{name}_{a}" for a in suited)], listed_by=f"{LISTING} {name}*"
        )
    raise ModelInputError(
        "model",
        f"{name} does not take {attention}, whose gate differs from place to place in the image: not every token has "
        f"a place. Accepted: {', '.join(suited)}",
    )


def _classes(spec: ModelSpec, backbone: Backbone) -> int | None:
    """The number of classes given, or the default of the backbone's task."""
    default = DEFAULT_CLASSES[backbone.task]
    if default is None and spec.num_classes is not None:
        raise ModelInputError(
            "num_classes", f"{spec.name} is a network for {backbone.task} and has no classes; leave them out"
        )
    return default if spec.num_classes is None else spec.num_classes


def accepted_options(name: str) -> dict[str, Any]:
    """The options of a network of this name, with their defaults. Raises ModelInputError for an unknown name."""
    backbone, _, kind = _parse(name)
    return _accepted_options(backbone, kind)


def _accepted_options(backbone: Backbone, kind: AttentionKind | None) -> dict[str, Any]:
    return {**PLAN_OPTIONS, **backbone.options, **(kind.options() if kind else {})}


def _check_spec_options(spec: ModelSpec, backbone: Backbone, kind: AttentionKind | None) -> dict[str, Any]:
    """The options given, each of a known name and of the type of its default."""
    accepted = _accepted_options(backbone, kind)
    for option in spec.options.keys() - accepted.keys():
        raise _no_option(spec.name, option, accepted)
    check_options("set", spec.options, accepted)
    return dict(spec.options)


def _no_option(name: str, option: str, accepted: dict[str, Any]) -> ModelInputError:
    if any(option in backbone.options for backbone in BACKBONES):
        return ModelInputError("set", f"{name} has no option {option}. Accepted: {', '.join(sorted(accepted))}")
    return unknown("set", option, accepted)
