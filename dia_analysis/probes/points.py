"""Probe points: where a network's attention maps are, by what it does in one pass; and modules by pattern."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.example import example_images
from dia_analysis.probes.found import FoundAttention, find_attention
from dia_analysis.probes.modes import autocast_off, evaluating

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
LONGEST = 260  # characters of an error, before "and 12 more"


def attention_of(
    model: nn.Module, inputs: Inputs | None = None, image_size: int | tuple[int, int] | None = None
) -> list[FoundAttention]:
    """The attention of a network in forward order, in one pass in evaluation mode; arguments as for `find_points`."""
    model = getattr(model, "_orig_mod", model)
    given = example_images(model, image_size) if inputs is None else inputs
    args, kwargs = ((), dict(given)) if isinstance(given, Mapping) else (_arguments(given), {})
    with evaluating(model), autocast_off(model), torch.no_grad():
        try:
            return find_attention(model, args, kwargs)
        except AnalysisInputError:
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:100]
            what = f"on images of {'x'.join(map(str, given.shape))}" if isinstance(given, Tensor) else "on these inputs"
            raise AnalysisInputError(
                "inputs", f"{type(model).__name__} fails {what}: {reason}; give inputs or an image_size that it takes"
            ) from error


def has_attention(
    model: nn.Module, inputs: Inputs | None = None, *, image_size: int | tuple[int, int] | None = None
) -> bool:
    """Whether a network uses attention whose maps can be captured, in a pass as `find_points` makes it."""
    return any(point.usable for point in attention_of(model, inputs, image_size))


def match_modules(model: nn.Module, patterns: str | Iterable[str]) -> tuple[str, ...]:
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
            raise no_match(pattern, [name for name, _ in model.named_modules() if name], "Its modules")
        matched.update(dict.fromkeys(first_name[module] for module in hits))
    return tuple(name for name, _ in model.named_modules() if name in matched)


def no_match(pattern: str, names: list[str], what: str) -> AnalysisInputError:
    """The error for a pattern that matches none of these names."""
    near = get_close_matches(pattern, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    start = f"nothing matches {pattern!r}. {hint}{what}: "
    return AnalysisInputError("points", start + some_of(names, LONGEST - len(start)))


def some_of(names: list[str], room: int) -> str:
    """The first names, as many as so many characters hold, and how many more there are."""
    shown = max(1, sum(length <= room for length in accumulate(len(name) + 2 for name in names)))
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _arguments(given: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)
