"""Attention on a network that the user built: any names of `attention_names`, at the ends of its residual branches."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dia_models.attention import attention_kind
from dia_models.attention.registry import check_options
from dia_models.errors import ModelInputError
from dia_models.spec import Network
from dia_models.surgery.branches import Branch, find_branches
from dia_models.surgery.tracing import Trace, trace

AnyModule = TypeVar("AnyModule", bound=nn.Module)
CHILD = "attention"


def attach(
    model: AnyModule,
    name: str,
    *,
    stages: Sequence[str | Sequence[str]] | None = None,
    images: Tensor | None = None,
    in_addition: bool = False,
    **options: Any,
) -> AnyModule:
    """Put attention on a residual network, in place.

    The gate multiplies the residual branch, after its last norm and before the shortcut is added (section III of the
    paper); no norm is added where a branch ends without one. The modules become the child `attention` of the network:
    all names in its state dict stay, `attention.*` is new.

    Args:
        model: A network of any library.
        name: An attention as in `create_model`: `se` gives every block a module of its own, `dia_se` or `dia_lstm` one
            to each stage.
        stages: One module name or a list of them for each stage; a module stands for the residual blocks in it, or,
            where it holds none, for itself as the end of a branch. By default blocks and stages are found in one
            forward pass: a stage is a run of residual blocks with one feature size.
        images: What that pass is given (batch, channel, height, width), by default two random images of the size
            that the network says it takes, or of 64 pixels.
        in_addition: Allow it on a network that has attention.
        **options: Those of the attention.

    Returns:
        The network.

    Raises:
        ModelInputError: For an unknown name or option, and for a network whose branches are not found, that already has
            attention, or that cannot hold a child. Nothing is changed then.
    """
    kind = attention_kind(name)
    check_options("options", options, kind.options())
    _check_network(model)
    seen = trace(model, images)
    _check_ungated(seen, in_addition)
    found = find_branches(model, stages, seen)
    attached = AttachedAttention(kind.make(run[0].size[0], len(run), options) for run in found)
    reference = next(model.parameters(), None)
    if reference is not None:
        attached.to(reference.device, reference.dtype)
    setattr(model, CHILD, attached.train(model.training))
    attached.connect(model, found)
    return model


def _check_network(model: nn.Module) -> None:
    """Refuse what cannot be attached to."""
    if isinstance(model, Network):
        raise ModelInputError("model", f"{model.spec.name} is one of ours; create_model makes it with attention")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        raise ModelInputError("model", "attach to the network itself, before it is compiled or made parallel")
    if isinstance(model, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise ModelInputError(
            "model",
            f"a {type(model).__name__} runs its children one after the other, so the attention cannot be one of them; "
            "attach to a network inside it, or put it into a Module of your own",
        )
    if hasattr(model, CHILD):
        raise ModelInputError("model", f"the network has something named {CHILD!r}; attention is attached once")


def _check_ungated(seen: Trace, in_addition: bool) -> None:
    """Refuse a network that multiplies its features by gates, whoever wrote them."""
    if seen.gates and not in_addition:
        raise ModelInputError(
            "model",
            f"the network has attention: it multiplies features by a gate {len(seen.gates)} times, first by "
            f"{seen.gates[0].name}; take it without, share the modules (dia_models.share), or give in_addition=True to "
            "have both",
        )


class AttachedAttention(nn.ModuleList):
    """The attention of an attached network, stage by stage: one shared module, or a ModuleList of one per block.

    A forward hook at the end of every branch applies it. What a module carries along depth belongs to a forward
    pass in a thread, not to the module (see `_Pass`), so copies, threads and interrupted passes cannot mix it up.
    """

    def __init__(self, stages: Iterable[nn.Module]):
        super().__init__(stages)
        self.key = _Key()  # the same for the replicas that DataParallel makes, another one for a deep copy
        self.ends: tuple[tuple[str, ...], ...] = ()
        self.handles: list[RemovableHandle] = []  # pickled with us, so that later hooks get other numbers than ours

    def connect(self, model: nn.Module, stages: Sequence[Sequence[Branch]]) -> None:
        """Hook the ends of the branches, and the start and the end of the network's forward."""
        self.ends = tuple(tuple(branch.end for branch in run) for run in stages)
        self._hook(model)

    def remove(self, model: nn.Module, layers: Mapping[int, Collection[int]]) -> None:
        """Take some layers of some stages away, both from 0; where none is left, all of the attention."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        ends, stages = [], []
        for stage, (names, attention) in enumerate(zip(self.ends, self, strict=True)):
            left = [layer for layer in range(len(names)) if layer not in layers.get(stage, ())]
            if left:
                ends.append(tuple(names[layer] for layer in left))
                some = [attention[n] for n in left] if isinstance(attention, nn.ModuleList) else None
                stages.append(attention if some is None else nn.ModuleList(some))
        if not stages:
            delattr(model, CHILD)
            return
        attached = AttachedAttention(stages)
        attached.ends = tuple(ends)
        setattr(model, CHILD, attached.train(model.training))
        attached._hook(model)

    def _hook(self, model: nn.Module) -> None:
        for stage, names in enumerate(self.ends):
            for layer, name in enumerate(names):
                module = model.get_submodule(name)
                self.handles.append(module.register_forward_hook(_Tap(self, stage, layer)))
        self.handles.append(model.register_forward_pre_hook(_begin))
        self.handles.append(model.register_forward_hook(_end, always_call=True))

    def forward(self, *_: Any) -> Tensor:
        """Refuse: a network that calls all its children in turn cannot hold this one."""
        raise ModelInputError(
            "model", "the network runs its children one after the other; attach to a network inside it, or wrap it"
        )


class _Key:
    """What tells one attached attention from another. Not a plain object(), by which torch.compile can find nothing."""


class _Pass:
    """A forward pass in one thread: for each stage, how many layers have run and what the last one handed on."""

    def __init__(self, attention: AttachedAttention, partial: bool = False):
        self.attention, self.partial = attention, partial
        self.done = [0] * len(attention)
        self.states: list[Any] = [None] * len(attention)

    def apply(self, stage: int, layer: int, branch: Tensor) -> Tensor:
        """Recalibrate a branch. A stage starts empty at its first layer; after the last one nothing is kept."""
        attention = self.attention[stage]
        if isinstance(attention, nn.ModuleList):
            self.done[stage] += 1
            recalibrated, _ = attention[layer](branch, None, None)
        else:
            carried, self.states[stage] = self.states[stage], None
            in_turn = layer == 0 or (layer == self.done[stage] and carried is not None)
            recalibrated, state = attention(branch, None, carried if layer else None)
            if state is not None and not in_turn:
                raise _out_of_turn(self.attention.ends[stage], layer)
            self.done[stage] = layer + 1
            self.states[stage] = state if self.done[stage] < len(self.attention.ends[stage]) else None
        output: Tensor = recalibrated
        return output

    def keeps(self, stage: int) -> bool:
        """Whether a later layer of the stage needs what the last one handed on."""
        return self.states[stage] is not None

    def check(self) -> None:
        """Raise ModelInputError unless every block has had its attention."""
        for done, ends in zip(self.done, self.attention.ends, strict=True):
            if done != len(ends):
                raise ModelInputError(
                    "model",
                    f"attention ran {done} times for the {len(ends)} blocks that end with {', '.join(ends)}: the "
                    "network leaves some out, or they were replaced (convert or fuse norms before you attach)",
                )


_local = threading.local()


def _passes() -> dict[_Key, _Pass]:
    """The running passes of this thread, by the attached attention's key."""
    if not hasattr(_local, "passes"):
        _local.passes = {}
    passes: dict[_Key, _Pass] = _local.passes
    return passes


def _begin(model: nn.Module, _: Any) -> None:
    attention = getattr(model, CHILD)
    _passes()[attention.key] = _Pass(attention)


def _end(model: nn.Module, _: Any, output: Any) -> None:
    """Forget the pass, also when the network failed (then there is no output)."""
    finished = _passes().pop(getattr(model, CHILD).key, None)
    if finished is not None and output is not None:
        finished.check()


class _Tap:
    """The forward hook at the end of a branch. A class of its own, since functions with a memory do not pickle."""

    def __init__(self, attention: AttachedAttention, stage: int, layer: int):
        self.attention, self.stage, self.layer = attention, stage, layer

    def __call__(self, _: nn.Module, __: Any, branch: Tensor) -> Tensor:
        """Use the running pass; without one, since a part of the network runs alone, one that lasts for the stage."""
        passes, key = _passes(), self.attention.key
        if key not in passes:
            passes[key] = _Pass(self.attention, partial=True)
        running = passes[key]
        try:
            return running.apply(self.stage, self.layer, branch)
        finally:
            if running.partial and not running.keeps(self.stage):
                del passes[key]


def _out_of_turn(ends: Sequence[str], layer: int) -> ModelInputError:
    return ModelInputError(
        "model",
        f"the shared attention at {ends[layer]} needs the state of the block before it, which has not just run; a "
        "stage's blocks run in order and together, so activation checkpointing must cover whole stages, not blocks",
    )
