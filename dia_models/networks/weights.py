"""Weights from elsewhere, fitted to a network by their names."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dia_models.checkpoints.state_dict import StateDict
from dia_models.errors import ModelInputError, one_line, some

PREFIXES = ("model.", "module.", "net.", "network.", "encoder.", "backbone.")
"""What usually stands before the names: of several that fit, the first of these is meant."""
DEEPEST_PREFIX = 4
COUNTER = "num_batches_tracked"  # unknown to old versions of torch
LEFTOVERS = (COUNTER, "total_ops", "total_params", "n_averaged", "relative_position_index", "attn_mask")
"""Ends of names of tensors that count, or that networks compute anew: not needed, whether or not they are there."""
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")


@dataclass(frozen=True)
class Fit:
    """What of a state dict fits a network: `tensors` under the network's names, and what is amiss.

    `prefix` stands before the names in the file, `inside` before those of the network.
    """

    state: StateDict
    prefix: str
    inside: str
    tensors: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    left_out: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The network's names that are not there."""
        return [name for name in self.expected if name not in self.tensors and not name.endswith(LEFTOVERS)]

    @property
    def foreign(self) -> list[str]:
        """Names that the network does not have, although nothing stands before the others."""
        return [] if self.prefix else [name for name in self.left_out if not name.endswith(LEFTOVERS)]

    @property
    def sizes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of each tensor of another size, that size and the network's."""
        both = {name: (tuple(t.shape), self.expected[name]) for name, t in self.tensors.items()}
        return {n: (theirs, tuple(ours.shape)) for n, (theirs, ours) in both.items() if not _same(theirs, ours)}

    def num_classes(self) -> int | None:
        """How many classes the network would need to have for all sizes to fit; None if it is not about that."""
        changes = {(theirs[:1], ours[:1], theirs[1:] == ours[1:]) for theirs, ours in self.sizes.values()}
        if len(changes) != 1 or self.missing or self.foreign:
            return None
        [(theirs, _, else_equal)] = changes
        return theirs[0] if else_equal and theirs else None

    def check(self, network: str) -> None:
        """Raise ModelInputError unless all fits; it says what does, and what is the first that does not."""
        if self.missing or self.foreign:
            raise ModelInputError("weights", self._names(network))
        if sizes := self.sizes:
            listed = some((f"{n} {theirs}, the network's {ours}" for n, (theirs, ours) in sizes.items()), 2, 90)
            raise ModelInputError(
                "weights",
                f"{self.state.place}: {len(sizes)} of {len(self.expected)} tensors have other sizes: {listed}",
            )

    def _names(self, network: str) -> str:
        fit = len(self.tensors)
        if not fit:
            return (
                f"{self.state.place} has other weights than {network}: none of its {len(self.state.tensors)} names "
                f"({some(self.state.tensors, 2, 50)}) are among the network's ({some(self.expected, 2, 50)})"
            )
        under = f" with {self.prefix!r} before them" if self.prefix else ""
        under += f" without the network's {self.inside!r}" if self.inside else ""
        parts = [f"{self.state.place} does not fit {network}: {fit} of {len(self.expected)} names are there{under}"]
        if self.missing:
            parts.append(f"missing {len(self.missing)}: {some(self.missing, 2, 50)}")
        if self.foreign:
            parts.append(f"not the network's {len(self.foreign)}: {some(self.foreign, 2, 50)}")
        return "; ".join(parts)

    def load(self, model: nn.Module) -> None:
        """Copy the tensors into the network. Raises ModelInputError if it does not take them."""
        meta = any(t.is_meta for t in self.expected.values())
        given = {name: t.clone() if meta else t for name, t in self.tensors.items()}
        for name, tensor in self.expected.items():
            if name.endswith(COUNTER) and name not in given:
                given[name] = torch.zeros((), dtype=tensor.dtype)
        try:
            left = model.load_state_dict(given, strict=False, assign=meta)
        except RuntimeError as error:
            raise ModelInputError("weights", f"{self.state.place}: {one_line(error, 200)}") from error
        if lost := [name for name in left.missing_keys if name in self.missing]:
            raise ModelInputError("weights", f"{self.state.place}: the network does not take {some(lost)}")


def fit(state: StateDict, model: nn.Module) -> Fit:
    """Find a network's tensors in a state dict, whatever stands before their names in either.

    `_orig_mod.`, which torch.compile adds anywhere in a name, is dropped, and DenseNet's names before torch 0.4 are
    read. Raises ModelInputError if two parts of the file fit equally well.
    """
    expected = {name: t for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    given = {_today(name): t for name, t in state.tensors.items()}
    prefix, inside = _best_prefixes(given, expected, state)
    tensors = {
        f"{inside}{rest}": t
        for name, t in given.items()
        if name.startswith(prefix) and f"{inside}{(rest := name.removeprefix(prefix))}" in expected
    }
    left_out = tuple(name for name in given if f"{inside}{name.removeprefix(prefix)}" not in tensors)
    return Fit(state, prefix, inside, tensors, expected, left_out)


def _today(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    old = OLD_DENSENET.fullmatch(name)
    return f"{old[1]}{old[2]}" if old else name


def _best_prefixes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], state: StateDict) -> tuple[str, str]:
    """What stands before the names in the file, and what before those of the network."""
    theirs = _prefixes(given, lambda rest: rest in expected)
    ours = _prefixes(expected, lambda rest: rest in given)
    most, nearest = max(theirs.values(), default=0), max(ours.values(), default=0)
    if nearest > most and 2 * nearest > len(expected):
        return "", min((p for p, count in ours.items() if count == nearest), key=_rank)
    best = sorted((p for p, count in theirs.items() if count == most), key=_rank)
    if len(best) > 1 and most and _rank(best[0]) == _rank(best[1]):
        raise ModelInputError(
            "weights",
            f"{state.place} holds several networks that fit, under {' and '.join(map(repr, best[:2]))}; save the state "
            "dict of the one that is meant",
        )
    return (best[0] if best else ""), ""


def _rank(prefix: str) -> int:
    """None, the usual ones in their order, then all others."""
    parts = [f"{part}." for part in prefix.split(".") if part]
    return max((PREFIXES.index(p) + 1 if p in PREFIXES else len(PREFIXES) + 1 for p in parts), default=0)


def _prefixes(names: Mapping[str, Tensor], fits: Callable[[str], bool]) -> Counter[str]:
    """How many names fit without each prefix that they have."""
    known: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for depth in range(min(DEEPEST_PREFIX + 1, len(parts))):
            if not name.endswith(LEFTOVERS) and fits(".".join(parts[depth:])):
                known["".join(f"{part}." for part in parts[:depth])] += 1
    return known


def _same(theirs: tuple[int, ...], ours: Tensor) -> bool:
    return is_lazy(ours) or theirs == tuple(ours.shape)
