"""Which of the maps that a pass uses are captured, and which modules' outputs beside, by patterns."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.found import FoundAttention
from dia_analysis.probes.points import match_modules, no_match

FEATURES, KIND = "features:", "kind:"
KINDS = ("channel", "spatial", "directional", "branch", "map", "self-attention")
Patterns = tuple[str, ...] | None


@dataclass(frozen=True)
class Choice:
    """What is captured: `maps` that were found, `modules` whose outputs are maps because the user says so, and modules
    whose outputs are `features`, to be pooled.
    """

    maps: tuple[FoundAttention, ...]
    modules: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


def as_patterns(points: str | Iterable[str] | None) -> Patterns:
    """A tuple of the patterns given."""
    return None if points is None else (points,) if isinstance(points, str) else tuple(points)


def check_patterns(model: nn.Module, patterns: Patterns) -> None:
    """Raise AnalysisInputError for a pattern that can match nothing, before the network runs."""
    for pattern in patterns or ():
        if pattern.startswith(KIND):
            check_kind(pattern.removeprefix(KIND))
            continue
        match_modules(model, pattern.removeprefix(FEATURES).partition(":")[0] or "*")


def choose(model: nn.Module, found: list[FoundAttention], patterns: Patterns) -> Choice:
    """What the patterns stand for in a pass that used the attention `found`; without any all that is usable.

    A pattern stands for the found maps whose names it matches, with or without what follows the colon; if there are
    none, for modules, whose outputs are taken for maps; with `features:` before it for modules whatever was found.
    `kind:channel` stands for all maps of a kind.
    Raises AnalysisInputError if there is nothing to capture.
    """
    if patterns is None:
        usable = tuple(one for one in found if one.usable)
        if not usable:
            raise AnalysisInputError("points", _nothing(model, found))
        return Choice(usable)
    maps: dict[FoundAttention, None] = {}
    modules: dict[str, None] = {}
    features: dict[str, None] = {}
    for pattern in patterns:
        if pattern.startswith(KIND):
            maps.update(dict.fromkeys(_of_kind(found, pattern.removeprefix(KIND))))
        elif pattern.startswith(FEATURES):
            features.update(dict.fromkeys(match_modules(model, pattern.removeprefix(FEATURES))))
        elif hits := [one for one in found if _matches(one.name, pattern)]:
            maps.update(dict.fromkeys(one for one in hits if one.usable or _refuse(one)))
        elif ":" in pattern:
            raise no_match(pattern, list(dict.fromkeys(one.name for one in found)), "The network's attention")
        else:
            modules.update(dict.fromkeys(match_modules(model, pattern)))
    return Choice(tuple(one for one in found if one in maps), tuple(modules), tuple(features))


def check_kind(kind: str) -> None:
    """Raise AnalysisInputError for what is no kind of map."""
    if kind not in KINDS:
        raise AnalysisInputError("points", f"{kind!r} is no kind of map; accepted: {', '.join(KINDS)}")


def _of_kind(found: list[FoundAttention], kind: str) -> list[FoundAttention]:
    hits = [one for one in found if one.usable and one.kind == kind]
    if not hits:
        known = ", ".join(dict.fromkeys(one.kind for one in found if one.usable)) or "none"
        raise AnalysisInputError("points", f"the network uses no attention of kind {kind!r}; its kinds: {known}")
    return hits


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition(":")[0], pattern)


def _refuse(one: FoundAttention) -> bool:
    raise AnalysisInputError("points", f"{one.name} is no attention map that can be captured: {one.reason}")


def _nothing(model: nn.Module, found: list[FoundAttention]) -> str:
    reasons = "; ".join(list(dict.fromkeys(f"{one.name}: {one.reason}" for one in found))[:2])
    return (
        f"{type(model).__name__} uses no attention that can be captured{f' ({reasons})' if reasons else ''}; name "
        "modules, 'features:layer*' for their outputs or 'layer*.se.sigmoid' for maps"
    )
