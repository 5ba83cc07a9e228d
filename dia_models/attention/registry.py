"""Which attention modules there are, by name, and whether a stage's layers own or share them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, TypeVar

from torch import nn

from dia_models.attention.base import Attention
from dia_models.attention.constant_vector import suits_vector, with_constant_vector
from dia_models.errors import ModelInputError, unknown

AnyAttention = TypeVar("AnyAttention", bound=type[Attention])

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    tuple: "a list of whole numbers",
}

CONSTANT = "asr_"
"""Before the name of a module whose gate is that of a learned vector."""


@dataclass(frozen=True)
class About:
    """What a reader wants to know of a module: its gate, its number of parameters, its source, and what of it the
    layers that share one keep for themselves. N channels, reduction r, y the channel means, ⊗ channel by channel.
    """

    gate: str = ""
    parameters: str = ""
    source: str = ""
    kept: str = "nothing"


_MODULES: dict[str, Any] = {}
_ABOUT: dict[str, About] = {}
_ALWAYS_SHARED: set[str] = set()


@dataclass(frozen=True)
class AttentionKind:
    """An attention module by name: its class, called with a number of channels and options, and who owns it."""

    name: str
    build: Any
    shared: bool

    def options(self) -> dict[str, Any]:
        """Option names and defaults: the keyword parameters of the module's constructor."""
        parameters = signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}

    def make(self, channels: int, layers: int, options: Mapping[str, Any]) -> Attention | nn.ModuleList:
        """The attention of a stage: one module that serves all its layers, or a list of one for each."""
        if not self.shared:
            return nn.ModuleList(self.build(channels, **options) for _ in range(layers))
        shared: Attention = self.build(channels, **options)
        shared.serve(layers)
        return shared


def check_options(argument: str, given: Mapping[str, Any], accepted: Mapping[str, Any]) -> None:
    """Raise ModelInputError unless every option given is known and of the type of its default."""
    for option, value in given.items():
        if option not in accepted:
            raise unknown(argument, option, accepted)
        expected = type(accepted[option])
        if type(value) is not expected:
            raise ModelInputError(argument, f"{option} must be {KINDS[expected]}, not {value!r}")


def register(
    name: str, about: About | None = None, *, always_shared: bool = False
) -> Callable[[AnyAttention], AnyAttention]:
    """Make an attention module known, so that `create_model` and `attach` accept its name.

    Args:
        name: Its name: `name` gives every layer a module, `dia_name` every stage one that its layers share, `asr_name`
            every layer one that is given a learned vector, where the module takes features of one position.
        about: What the table of modules says of it.
        always_shared: Know it once, as `name`, and shared.

    Returns:
        A decorator for the class, a subclass of `Attention` that is called with the number of channels; keyword-only
        parameters of its constructor are its options.
    """

    def decorate(module: AnyAttention) -> AnyAttention:
        _MODULES[name] = module
        _ABOUT[name] = about or About()
        if always_shared:
            _ALWAYS_SHARED.add(name)
        return module

    return decorate


def attention_names() -> list[str]:
    """Every name `attention_kind` accepts."""
    individual = sorted(_MODULES.keys() - _ALWAYS_SHARED)
    constant = [f"{CONSTANT}{name}" for name in individual if suits_vector(_MODULES[name])]
    return [*individual, *(f"dia_{name}" for name in individual), *constant, *sorted(_ALWAYS_SHARED)]


def attention_kind(name: str) -> AttentionKind:
    """Look an attention name up. Raises ModelInputError for an unknown one."""
    if name not in attention_names():
        raise unknown("attention", name, attention_names())
    if name in _MODULES:
        return AttentionKind(name, _MODULES[name], name in _ALWAYS_SHARED)
    if name.startswith(CONSTANT):
        return AttentionKind(name, with_constant_vector(_MODULES[name.removeprefix(CONSTANT)]), False)
    return AttentionKind(name, _MODULES[name.removeprefix("dia_")], True)


def attention_table(channels: int) -> str:
    """A Markdown table of the registered modules; the parameters at `channels` channels are counted, not calculated."""
    head = f"| name | gate | parameters | at N = {channels} | options | what sharing layers keep | source |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *(_table_row(row) for row in attention_rows(channels))])


def attention_rows(channels: int) -> list[dict[str, Any]]:
    """What `attention_table` says, a dict for each registered module."""
    return [
        {
            "name": name,
            "gate": _ABOUT[name].gate,
            "formula": _ABOUT[name].parameters,
            "parameters": sum(p.numel() for p in attention_kind(name).build(channels).parameters()),
            "options": attention_kind(name).options(),
            "kept": _ABOUT[name].kept,
            "source": _ABOUT[name].source,
        }
        for name in _MODULES
    ]


def _table_row(row: dict[str, Any]) -> str:
    options = ", ".join(f"`{option}={value}`" for option, value in row["options"].items())
    cells = (
        f"`{row['name']}`",
        row["gate"],
        row["formula"],
        f"{row['parameters']:,}",
        options,
        row["kept"],
        row["source"],
    )
    return f"| {' | '.join(cells)} |"


def check_reduction(reduction: int, channels: int) -> int:
    """Give the reduced width channels / reduction. Raises ModelInputError unless it is a whole number of at least 1."""
    if reduction < 1 or channels % reduction:
        raise ModelInputError(
            "reduction",
            f"reduction {reduction} must divide the {channels} channels it reduces; try 1, 2, 4, 8 or 16",
        )
    return channels // reduction
