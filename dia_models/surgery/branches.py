"""Where the residual branches of any network end, and which of them make a stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from dia_models.errors import ModelInputError, did_you_mean
from dia_models.surgery.tracing import FeatureSize, Sum, Trace

NAME_THEM = (
    "Name the modules whose outputs the gate is to multiply: "
    "stages=[['layer1.0.bn2', 'layer1.1.bn2'], ['layer2.0.bn2']]"
)


@dataclass(frozen=True)
class Branch:
    """A residual branch: `end` names the module that puts it out, `size` is its (channels, height, width)."""

    end: str
    size: FeatureSize


def find_branches(model: nn.Module, stages: Sequence[str | Sequence[str]] | None, seen: Trace) -> list[list[Branch]]:
    """The branches of each stage in forward order, of those the user named or of all that a pass has `seen`.

    Raises ModelInputError where there is none or its end is not found, and for a stage of unequal sizes.
    """
    if stages is None:
        return _runs(model, seen)
    if isinstance(stages, str) or not stages:
        raise ModelInputError("stages", f"{stages!r}: give a list with one module name, or list of names, per stage")
    named = [[stage] if isinstance(stage, str) else list(stage) for stage in stages]
    found = [_named_stage(model, seen, names) for names in named]
    ends = [branch.end for stage in found for branch in stage]
    if twice := [end for end in ends if ends.count(end) > 1]:
        raise ModelInputError("stages", f"the branch that {twice[0]} ends is named twice")
    return found


def _runs(model: nn.Module, seen: Trace) -> list[list[Branch]]:
    if not seen.sums:
        raise ModelInputError(
            "model", f"{type(model).__name__} has no residual block that adds one branch to a shortcut. {NAME_THEM}"
        )
    branches = [_branch(seen, found) for found in seen.sums]
    return [list(run) for _, run in groupby(branches, key=lambda branch: branch.size)]


def _named_stage(model: nn.Module, seen: Trace, names: Sequence[str]) -> list[Branch]:
    branches = [branch for name in names for branch in _within(model, seen, name)]
    sizes = {branch.size for branch in branches}
    if len(sizes) != 1:
        shown = " and ".join("x".join(map(str, size)) for size in sorted(sizes)) or "none"
        raise ModelInputError(
            "stages", f"the branches in {', '.join(names) or 'an empty stage'} need one size; given: {shown}"
        )
    order = [call.module for call in seen.calls]
    return sorted(branches, key=lambda branch: order.index(branch.end))


def _within(model: nn.Module, seen: Trace, name: str) -> list[Branch]:
    """The branches of the residual blocks in a module, or the module itself as the end of one."""
    known = [known for known, _ in model.named_modules() if known]
    if name not in known:
        hint = did_you_mean(name, known) or "model.named_modules() lists them"
        raise ModelInputError("stages", f"{type(model).__name__} has no module {name!r}; {hint.strip()}")
    sums = [found for found in seen.sums if found.block == name or found.block.startswith(f"{name}.")]
    if sums:
        return [_branch(seen, found) for found in sums]
    sizes = [call.given for call in seen.calls if call.module == name]
    if len(sizes) != 1 or sizes[0] is None:
        reason = f"it runs {len(sizes)} times" if len(sizes) != 1 else "it gives no (batch, channel, height, width)"
        raise ModelInputError("stages", f"{name} holds no residual block and cannot end a branch: {reason}")
    return [Branch(name, sizes[0])]


def _branch(seen: Trace, found: Sum) -> Branch:
    """The branch of a sum: it ends with the module that made it, or else the first that put it out."""
    ends = [end for end in found.ends if _runs_once(seen)(end)]
    if found.trouble or not ends:
        trouble = found.trouble or f"{', '.join(found.ends)} runs more than once"
        where = found.block or "the network itself"
        raise ModelInputError(
            "stages", f"the end of the residual branch of {where} is not found: {trouble}. {NAME_THEM}"
        )
    return Branch(ends[0], found.size)


def _runs_once(seen: Trace) -> Callable[[str], bool]:
    return lambda name: sum(call.module == name for call in seen.calls) == 1
