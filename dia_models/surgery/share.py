"""Turn one attention module per layer into one per stage: what to do once their attention maps are found alike."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.probes.makers import maker
from dia_models.attention import Attention
from dia_models.attention.constant_vector import ConstantVector
from dia_models.backbones.stage import Stage
from dia_models.errors import ModelInputError
from dia_models.spec import Network
from dia_models.surgery.attach import AttachedAttention
from dia_models.surgery.fit_shared import fit_shared
from dia_models.surgery.hidden_units import matched
from dia_models.surgery.tracing import FeatureSize, Trace, trace


@dataclass(frozen=True)
class SharedStage:
    """The modules, in forward order, that became one, and the parameters that they had and that it has.

    `deviation` says how rough the average is: with w a module's shared weights, hidden units matched, and m their mean
    over the modules, the largest ‖w - m‖ / ‖m‖ over the modules. 0 where the modules were equal. `fit_error` is what
    is left where the shared module was fitted: the root mean square of the difference to what the modules gave, divided
    by that of what they gave; None where it was not.
    """

    modules: tuple[str, ...]
    parameters_before: int
    parameters_after: int
    deviation: float
    fit_error: float | None = None

    @property
    def saved(self) -> int:
        """The parameters that are gone."""
        return self.parameters_before - self.parameters_after

    def row(self) -> tuple[str, ...]:
        """The stage as `SharingReport.summary` prints it."""
        counts = (self.parameters_before, self.parameters_after, self.saved)
        return str(len(self.modules)), *map(_with_commas, counts), f"{self.deviation:.2f}", self.modules[0]


@dataclass(frozen=True)
class SharingReport:
    """What `share` did, stage by stage, and the parameters of the whole network before and after."""

    stages: tuple[SharedStage, ...]
    parameters_before: int
    parameters_after: int

    @property
    def saved(self) -> int:
        """The parameters that are gone."""
        return self.parameters_before - self.parameters_after

    def summary(self) -> str:
        """A table of the stages, and the whole network's saving."""
        heads = ("stage", "modules", "before", "after", "saved", "deviation", "first module")
        rows = [(str(number), *stage.row()) for number, stage in enumerate(self.stages, 1)]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in (heads, *rows)]
        share = self.saved / self.parameters_before
        before, after = _with_commas(self.parameters_before), _with_commas(self.parameters_after)
        return "\n".join([*lines, f"network: {before} parameters, now {after} ({share:.1%} saved)"])


def share(
    model: nn.Module, *, modules: str | None = None, images: Tensor | None = None, fit_batches: Any = None
) -> SharingReport:
    """Replace the individual attention modules of a network by one per stage, in place.

    The shared module starts from the mean of the modules' weights, their hidden units matched to the first module's,
    which have no order; what layers must not share (the batch norms inside our `srm` and `cbam`) it keeps for each.
    With `fit_batches` it is then fitted to what the modules gave for the features that each of them saw. It is the
    same object in every place. The network needs fine-tuning after; make the optimizer after too.

    A network of ours becomes the one of the `dia_` name: its `spec` says so, and it saves as such. In others a stage is
    a run of modules of one kind that are called one after the other with the same weights' shapes and the same size of
    features, seen in one forward pass.

    Args:
        model: A network of this or any library.
        modules: A shell pattern for the modules to share, such as `layer*.se`; by default those that make the gates by
            which the network multiplies its features.
        images: What the pass is given (batch, channel, height, width), by default two random images of the size that
            the network says it takes, or of 64 pixels.
        fit_batches: Training images (batch, channel, height, width), with or without labels, to which the shared
            modules are fitted; by default they are not.

    Returns:
        The modules and parameters of each stage before and after.

    Raises:
        ModelInputError: If there is nothing to share, or a module holds a batch norm, whose sharing fails (Fig. 15 of
            the paper). Nothing is changed then.
    """
    before = _count([model])
    ours = list(_our_groups(model)) if modules is None else []
    groups = ours or list(_outside_groups(model, modules, images))
    if not groups:
        raise ModelInputError("model", "no two attention modules of this network can be one; there is nothing to share")
    merged = [_merge(group.modules) for group in groups]
    errors: list[float | None] = [None] * len(groups)
    if fit_batches is not None:
        together = [(group.modules, shared) for group, (shared, _) in zip(groups, merged, strict=True)]
        errors = [*fit_shared(model, together, fit_batches)]
    stages = tuple(_put(group, *one, error) for group, one, error in zip(groups, merged, errors, strict=True))
    for network in (part for part in model.modules() if ours and isinstance(part, Network)):
        network.spec = network.spec.model_copy(update={"name": _shared_name(network.spec.name)})
    return SharingReport(stages, before, _count([model]))


@dataclass(frozen=True)
class _Group:
    """The modules of a stage by name, in forward order, and what puts a shared one in their place."""

    named: dict[str, nn.Module]
    put: Callable[[nn.Module], None]

    @property
    def modules(self) -> list[nn.Module]:
        return list(self.named.values())


def _our_groups(model: nn.Module) -> Iterator[_Group]:
    """The stages of our networks and of `attach` that have one module per block."""
    for place, holder in model.named_modules():
        if isinstance(holder, Stage) and _are_individual(holder.attention):
            assert isinstance(holder.attention, nn.ModuleList)
            yield _group_in(holder, "attention", f"{place}.attention", holder.attention)
        if isinstance(holder, AttachedAttention):
            for number, stage in holder.named_children():
                if _are_individual(stage):
                    assert isinstance(stage, nn.ModuleList)
                    yield _group_in(holder, number, f"{place}.{number}", stage)


def _are_individual(attention: nn.Module | None) -> bool:
    """Whether each layer has a module of its own, which looks at the image."""
    return isinstance(attention, nn.ModuleList) and not any(isinstance(m, ConstantVector) for m in attention)


def _group_in(holder: nn.Module, child: str, name: str, modules: nn.ModuleList) -> _Group:
    named = {f"{name}.{layer}": module for layer, module in enumerate(modules)}
    return _Group(named, partial(setattr, holder, child))


def _outside_groups(model: nn.Module, pattern: str | None, images: Tensor | None) -> Iterator[_Group]:
    seen = trace(model, images)
    found = _makers(model, seen) if pattern is None else _matching(model, pattern)
    calls = {call.module: call.taken for call in seen.calls if call.module in found}
    kinds: dict[type, list[tuple[str, Any]]] = {}
    for name, size in calls.items():
        kinds.setdefault(type(found[name]), []).append((name, _likeness(found[name], size)))
    for members in kinds.values():
        for _, run in groupby(members, key=lambda member: member[1]):
            named = {name: found[name] for name, _ in run}
            if len(named) > 1:
                _check_norms(named)
                yield _Group(named, partial(_replace, model, named))


def _makers(model: nn.Module, seen: Trace) -> dict[str, nn.Module]:
    """The modules that make the gates of a network, each the outermost with nothing else in it."""
    name = type(model).__name__
    if not seen.gates:
        raise ModelInputError("model", f"{name} multiplies its features by no gate; there is nothing to share")
    makers = {maker(model, gate.weights): gate.name for gate in seen.gates}
    makers.pop("", None)
    if not makers:
        raise ModelInputError(
            "model", f"no module of {name} makes {seen.gates[0].name} and nothing else, so none can be shared"
        )
    return {found: model.get_submodule(found) for found in makers}


def _matching(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    found = {name: module for name, module in model.named_modules() if name and fnmatchcase(name, pattern)}
    if not found:
        raise ModelInputError(
            "modules",
            f"no module of {type(model).__name__} matches {pattern!r}; give a pattern such as 'layer*.se'",
        )
    return found


def _likeness(module: nn.Module, size: FeatureSize | None) -> Any:
    """What modules that can be one have in common: their structure with all settings, their weights, the features."""
    return repr(module), [tensor.shape for tensor in module.state_dict().values()], size


def _check_norms(named: dict[str, nn.Module]) -> None:
    for name, module in named.items():
        if any(isinstance(part, nn.modules.batchnorm._NormBase) for part in module.modules()):
            raise ModelInputError(
                "modules",
                f"{name} holds a batch norm, which layers must not share (Fig. 15 of the paper); "
                "name the modules without one, such as modules='*.channel'",
            )


def _replace(model: nn.Module, named: dict[str, nn.Module], shared: nn.Module) -> None:
    """Put the shared module at every name of the others."""
    others = {id(module) for module in named.values()}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in others:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, shared)


def _put(group: _Group, shared: nn.Module, deviation: float, fit_error: float | None) -> SharedStage:
    before = _count(group.modules)
    group.put(shared)
    return SharedStage(tuple(group.named), before, _count([shared]), deviation, fit_error)


def _merge(modules: Sequence[nn.Module]) -> tuple[nn.Module, float]:
    """One module with the mean of the weights, and the largest relative deviation of a module's from it."""
    shared = copy.deepcopy(modules[0])
    if isinstance(shared, Attention):
        shared.serve(len(modules))
        some = next(modules[0].parameters())
        shared.to(some.device, some.dtype).train(modules[0].training)  # the parts that it has just gained too
    states = [module.state_dict() for module in matched(modules)]
    own = _own_parts(list(shared.state_dict()), states[0])
    with torch.no_grad():
        for name, tensor in shared.state_dict().items():
            if name in own:
                layer, source = own[name]
                tensor.copy_(states[layer][source])
            else:
                tensor.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    averaged = [name for name, _ in modules[0].named_parameters() if name not in own]
    return shared, _deviation([torch.cat([state[n].double().flatten() for n in averaged]) for state in states])


def _own_parts(names: Sequence[str], individual: dict[str, Tensor]) -> dict[str, tuple[int, str]]:
    """What each layer keeps, by its name in the shared module: the layer it belongs to, and its name there.

    `Attention.serve` lengthens lists: `norms.3.weight`, which no individual module has, is layer 3's `norms.0.weight`.
    """
    own: dict[str, tuple[int, str]] = {}
    for name in names:
        if name not in individual:
            layer, source = _origin(name, individual)
            own |= {name: (layer, source), source: (0, source)}
    return own


def _origin(name: str, individual: dict[str, Tensor]) -> tuple[int, str]:
    for match in re.finditer(r"(?<=\.)\d+(?=\.)", name):
        first = f"{name[: match.start()]}0{name[match.end() :]}"
        if first in individual:
            return int(match[0]), first
    raise ModelInputError("model", f"a shared module has {name}, which comes from no individual one")


def _deviation(weights: Sequence[Tensor]) -> float:
    mean = torch.stack(list(weights)).mean(0)
    largest = max(float((w - mean).norm()) for w in weights)
    return largest / float(mean.norm()) if largest else 0.0


def _shared_name(name: str) -> str:
    """`cifar_resnet29_dia_se` for `cifar_resnet29_se`."""
    backbone, _, attention = name.rpartition("_")
    return f"{backbone}_dia_{attention}"


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for parameter in nn.ModuleList(modules).parameters())


def _with_commas(number: int) -> str:
    return f"{number:,}"
