"""Capture what modules put out, call by call, and leave the network as it was."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.attending import attending
from dia_analysis.probes.found import FoundAttention
from dia_analysis.probes.points import match_points
from dia_analysis.probes.self_attention import HeadWeights, shows_self_attention, unfused

SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Record:
    """The output of one call of one module.

    `feature_size` is (height, width) of the features given to the module's parent, the attention module that the
    point belongs to; None if the parent takes none. `self_attention` says that the value is (batch, head, row,
    column), the weights with which self-attention adds up its values: columns are the tokens that go into a token, or,
    `over_channels`, a head's channels that go into one of them (cross-covariance attention, as in XCiT and EdgeNeXt).
    """

    module: str
    call: int
    value: Tensor
    feature_size: tuple[int, int] | None
    self_attention: bool = False
    over_channels: bool = False
    kind: str = ""


class Records(Mapping[tuple[str, int], Tensor]):
    """The outputs captured in the network's latest forward pass, by (module name, call index), in forward order.

    A module that runs several times in one pass has one record per call. The next forward pass starts anew.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], Record] = {}
        self._calls: dict[str, int] = {}
        self._fired: set[str] = set()
        self._depth = 0
        self._model_ran = False

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        return self._records[key].value

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def in_order(self) -> list[Record]:
        """The records in the order in which the modules ran."""
        return list(self._records.values())

    def clear(self) -> None:
        """Forget the captured outputs."""
        self._records.clear()
        self._calls.clear()

    def _enter_model(self, *_: Any) -> None:
        if self._depth == 0:
            self.clear()
        self._depth += 1
        self._model_ran = True

    def _leave_model(self, *_: Any) -> None:
        self._depth -= 1

    def _add(self, name: str, output: Any, given: "_Given", self_attention: bool) -> None:
        if self._model_ran and self._depth == 0:  # a part run again outside the pass, by activation checkpointing
            return
        if not isinstance(output, Tensor):
            raise AnalysisInputError("points", f"{name} gives a {type(output).__name__}, not a tensor")
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        self._fired.add(name)
        value = output.detach().clone()  # a copy, since a later module may change the tensor in place
        over_channels = self_attention and _over_channels(value, given.tokens)
        self._records[name, call] = Record(name, call, value, given.size, self_attention, over_channels)

    def _attend(self, one: FoundAttention, map_: Tensor) -> None:
        if self._model_ran and self._depth == 0:
            return
        size = (one.feature_size[0], one.feature_size[1]) if len(one.feature_size) == 2 else None
        of_tokens = one.kind == "self-attention"
        over_channels = of_tokens and any(axis.kind == "channel" for axis in one.rows)
        value = map_.detach().clone()
        self._records[one.name, one.call] = Record(one.name, one.call, value, size, of_tokens, over_channels, one.kind)

    def _check_all_ran(self, names: Sequence[str]) -> None:
        silent = [name for name in names if name not in self._fired]
        if not silent:
            return
        shown = ", ".join(silent[:SHOWN]) + (f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else "")
        if not self._model_ran:
            raise AnalysisInputError("points", f"{shown} never ran: the network was not run inside the block")
        raise AnalysisInputError(
            "points",
            f"{shown} never ran: the network does not use {'it' if len(silent) == 1 else 'them'} in its forward pass; "
            "name as points the modules whose outputs multiply its features",
        )


@contextmanager
def capture(model: nn.Module, points: str | Iterable[str] | None = None) -> Iterator[Records]:
    """Record the outputs of a network's probe points while it runs inside the `with` block.

    `points` are shell patterns of module names; by default the attention gates, or else the self-attention, that
    `find_points` finds. Self-attention is computed step by step meanwhile, so that there is a map to record: the
    outputs may differ in float32's last digits, and every map takes batch x heads x tokens² numbers of memory.
    Nothing of the network changes, and nothing of the capture stays behind, whatever happens inside. A compiled
    network runs uncompiled meanwhile, because compiled code ignores hooks.

    Raises AnalysisInputError for patterns that match nothing, for a scripted network, and, on leaving the block,
    for points that never ran.
    """
    model = getattr(model, "_orig_mod", model)
    records = Records()
    with (
        _passes_of(model, records),
        attending(model, records._attend) if points is None else _put_out(model, records, points),
    ):
        yield records


@contextmanager
def _passes_of(model: nn.Module, records: Records) -> Iterator[None]:
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))
        hooks.callback(model.register_forward_pre_hook(records._enter_model).remove)
        hooks.callback(model.register_forward_hook(records._leave_model, always_call=True).remove)
        yield


@contextmanager
def _put_out(model: nn.Module, records: Records, points: str | Iterable[str]) -> Iterator[None]:
    """Record what the modules put out that match `points`."""
    refuse_scripted(model)
    names = match_points(model, points)
    modules = dict(model.named_modules())
    with ExitStack() as hooks:

        def undo_later(handle: Any) -> None:
            hooks.callback(handle.remove)

        hooks.enter_context(unfused(model, names))
        for name in names:
            module = modules[name]
            given = _Given(batch_first=not isinstance(module, nn.MultiheadAttention))
            record = _recorder(records, name, given, shows_self_attention(name, module))
            if isinstance(module, nn.MultiheadAttention):
                weights = HeadWeights(record)
                undo_later(module.register_forward_pre_hook(weights.ask, with_kwargs=True))
                undo_later(module.register_forward_hook(weights.answer, prepend=True))
            else:
                undo_later(module.register_forward_hook(_after(record)))
            for holder in _holders(modules, name):
                undo_later(holder.register_forward_pre_hook(given.see, with_kwargs=True))
        yield
    records._check_all_ran(names)


class _Given:
    """Remembers what was last given to a module: the features' height and width, how many tokens of how many channels.

    `tokens` is None for modules whose tokens may come in another order than (batch, token, channel).
    """

    def __init__(self, batch_first: bool) -> None:
        self.batch_first = batch_first
        self.size: tuple[int, int] | None = None
        self.tokens: tuple[int, int] | None = None

    def see(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if (features := next((a for a in tensors if a.ndim == 4), None)) is not None:
            self.size = (features.shape[2], features.shape[3])
        if self.batch_first and (tokens := next((a for a in tensors if a.ndim == 3), None)) is not None:
            self.tokens = (tokens.shape[1], tokens.shape[2])


def _holders(modules: dict[str, nn.Module], name: str) -> list[nn.Module]:
    """The modules that may be given the features a point belongs to, outermost first: its parent, and the owner of
    the list that the parent is in, as the cells of a stacked LSTM are.
    """
    parent, _, _ = name.rpartition(".")
    container, _, _ = parent.rpartition(".")
    owner, _, _ = container.rpartition(".")
    listed = container and isinstance(modules[container], nn.ModuleList)
    return [modules[owner], modules[parent]] if listed else [modules[parent]]


def _over_channels(value: Tensor, tokens: tuple[int, int] | None) -> bool:
    """Whether self-attention's maps are of a head's channels, which their shape tells unless the tokens are as many."""
    if tokens is None or value.ndim != 4:
        return False
    count, channels = tokens
    _, heads, rows, columns = value.shape
    return rows == columns != count and heads * rows == channels


def _recorder(records: Records, name: str, given: _Given, self_attention: bool) -> Callable[[Any], None]:
    def record(output: Any) -> None:
        records._add(name, output, given, self_attention)

    return record


def _after(record: Callable[[Any], None]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        record(output)

    return hook


def refuse_scripted(model: nn.Module) -> None:
    """Raise AnalysisInputError for a network with a part whose inside hooks cannot reach."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise AnalysisInputError(
                "model",
                f"{name or 'the network'} is a TorchScript module, which hides its inside; give the original",
            )
