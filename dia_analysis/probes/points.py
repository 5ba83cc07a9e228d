"""Probe points: the modules of a network whose outputs are attention maps, found by structure and name."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.self_attention import shows_self_attention

LONGEST = 260  # characters of an error, before "and 12 more"


def find_points(model: nn.Module) -> tuple[str, ...]:
    """The names of a network's attention gates, or else of its self-attention, in the order of `named_modules`.

    A gate is a childless module named `gate` that is an identity or some sigmoid (this library's probe points;
    timm's SE, ECA and CBAM), or the `scale_activation` of torchvision's SqueezeExcitation. Self-attention is
    `nn.MultiheadAttention` and timm's `attn_drop`, through which the maps pass; in a network that also has gates
    it must be asked for by name.
    Raises AnalysisInputError if there is neither.
    """
    found = tuple(_gates(model)) or tuple(_self_attention(model))
    if not found:
        start = (
            f"no attention gate was found in {type(model).__name__}; name the modules whose outputs are attention "
            "maps, such as 'layer*.attention.sigmoid'. Its modules: "
        )
        raise AnalysisInputError("points", start + _some(_names(model), LONGEST - len(start)))
    return found


def has_attention(model: nn.Module) -> bool:
    """Whether `find_points` finds attention maps to capture."""
    try:
        return bool(find_points(model))
    except AnalysisInputError:
        return False


def match_points(model: nn.Module, patterns: str | Iterable[str]) -> tuple[str, ...]:
    """The names of the modules that match shell patterns such as `layer*.se.gate`; `*` also matches dots.

    A module that is reachable by several names is given once, by its first. Raises AnalysisInputError for a
    pattern that matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    first_name = {module: name for name, module in reversed(list(model.named_modules(remove_duplicate=False)))}
    matched: dict[str, None] = {}
    for pattern in patterns:
        hits = [m for name, m in model.named_modules(remove_duplicate=False) if name and fnmatchcase(name, pattern)]
        if not hits:
            raise _no_match(model, pattern)
        matched.update(dict.fromkeys(first_name[module] for module in hits))
    return tuple(name for name, _ in model.named_modules() if name in matched)


def is_squeeze_excitation(module: nn.Module) -> bool:
    """Whether a module is torchvision's SqueezeExcitation; told by name, as torchvision takes seconds to import."""
    kinds = (f"{kind.__module__}.{kind.__name__}" for kind in type(module).__mro__)
    return "torchvision.ops.misc.SqueezeExcitation" in kinds


def _gates(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if is_squeeze_excitation(module):
            yield f"{name}.scale_activation"
        elif name.rpartition(".")[2] == "gate" and not list(module.children()) and _passes_or_squashes(module):
            yield name


def _self_attention(model: nn.Module) -> Iterator[str]:
    return (name for name, module in model.named_modules() if name and shows_self_attention(name, module))


def _passes_or_squashes(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or "sigmoid" in type(module).__name__.lower()


def _no_match(model: nn.Module, pattern: str) -> AnalysisInputError:
    names, gates = _names(model), list(_gates(model))
    near = get_close_matches(pattern, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    start = f"no module matches {pattern!r}. {hint}{'Attention gates' if gates else 'Its modules'}: "
    return AnalysisInputError("points", start + _some(gates or names, LONGEST - len(start)))


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _some(names: list[str], room: int) -> str:
    """The first names, as many as so many characters hold, and how many more there are."""
    shown = max(1, sum(length <= room for length in accumulate(len(name) + 2 for name in names)))
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
