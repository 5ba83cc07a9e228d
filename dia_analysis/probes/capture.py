"""Capture a network's attention maps, call by call, and leave the network as it was."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.attending import attending
from dia_analysis.probes.choosing import as_patterns, check_patterns
from dia_analysis.probes.records import Record

SHOWN = 3  # names in an error


class Records(Mapping[tuple[str, int], Tensor]):
    """The maps captured in the network's latest forward pass, by (point, call index), in forward order.

    A module that runs several times in one pass has one record per call. The next forward pass starts anew.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], Record] = {}
        self._depth = 0
        self._model_ran = False

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        return self._records[key].value

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def in_order(self) -> list[Record]:
        """The records in forward order."""
        return list(self._records.values())

    def clear(self) -> None:
        """Forget the captured maps."""
        self._records.clear()

    def _enter_model(self, *_: Any) -> None:
        if self._depth == 0:
            self.clear()
        self._depth += 1
        self._model_ran = True

    def _leave_model(self, *_: Any) -> None:
        self._depth -= 1

    def _add(self, record: Record) -> None:
        if self._depth == 0:  # a part run again outside the pass, by activation checkpointing
            return
        value = record.value.detach().clone()  # a copy, since a later module may change the tensor in place
        self._records[record.module, record.call] = replace(record, value=value)

    def _check_all_ran(self, silent: list[str]) -> None:
        if not silent:
            return
        shown = ", ".join(silent[:SHOWN]) + (f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else "")
        raise AnalysisInputError(
            "points",
            f"{shown} never ran: the network does not use {'it' if len(silent) == 1 else 'them'} in its forward pass",
        )


@contextmanager
def capture(model: nn.Module, points: str | Iterable[str] | None = None) -> Iterator[Records]:
    """Record the attention maps of a network while it runs inside the `with` block.

    Before the first pass in the block, and before one on inputs of another size, two of the images go through the
    network to find what it multiplies its features or values by (`find_points`); hooks of the network run then, too.
    From then on the maps are taken where they are used. Nothing of the network changes, and
    nothing of the capture stays behind, whatever happens inside. A compiled network runs uncompiled meanwhile, and
    torch's fast path for transformers is off: its outputs may then differ in float32's last digits. Self-attention's
    maps take batch x heads x tokens² numbers of memory; where attention is fused they are computed beside it.

    Args:
        model: Any network; it is to be run whole.
        points: Shell patterns of names that `find_points` gives, such as `blocks.*:attention`; by default all that is
            usable. A pattern that matches no such name stands for modules whose outputs are maps, `features:` before
            it for modules whose outputs are pooled over their positions, `kind:channel` for all maps of a kind.

    Yields:
        The maps of the latest pass: gates (image, what they vary over), self-attention (image, head, query, key),
        of windows (image, window, head, query, key).

    Raises:
        AnalysisInputError: For patterns that match nothing, for a scripted network, from the first pass if there is
            nothing to capture, and on leaving the block for modules that were named and never ran.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        refuse_scripted(model)
    patterns = as_patterns(points)
    check_patterns(model, patterns)
    records = Records()
    with _passes_of(model, records), attending(model, patterns, records._add) as finder:
        yield records
    if patterns and not records._model_ran:
        raise AnalysisInputError("points", f"{', '.join(patterns)}: the network was not run inside the block")
    records._check_all_ran(finder.silent)


@contextmanager
def _passes_of(model: nn.Module, records: Records) -> Iterator[None]:
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))
        hooks.callback(model.register_forward_pre_hook(records._enter_model).remove)
        hooks.callback(model.register_forward_hook(records._leave_model, always_call=True).remove)
        yield


def refuse_scripted(model: nn.Module) -> None:
    """Raise AnalysisInputError for a network with a part whose inside hooks cannot reach."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise AnalysisInputError(
                "model",
                f"{name or 'the network'} is a TorchScript module, which hides its inside; give the original",
            )
