"""Controls that need no second network: is what the gates see as alike as the gates, or what their blocks put out?

Block outputs share the shortcut, so they are alike whatever the attention does.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.correlation.measure import measure_correlation
from dia_analysis.correlation.results import Controls, CorrelationResult, StageCorrelation
from dia_analysis.distributed import all_gather
from dia_analysis.probes.alignment import adds_shortcut
from dia_analysis.probes.batches import inputs_of, iterate_batches
from dia_analysis.probes.choosing import FEATURES
from dia_analysis.probes.found import watched
from dia_analysis.probes.gates import ELEMENTWISE, Gate, find_gates, plain
from dia_analysis.probes.graph import Graph, Node
from dia_analysis.probes.modes import evaluating

Modules = list[tuple[int, list[str]]]


def with_controls(
    gates: CorrelationResult, model: nn.Module, batches: Iterable[Any], *, seed: int = 0
) -> CorrelationResult:
    """Add to what was measured of a network's gates the same of what they see, and of what their blocks put out.

    Args:
        gates: What was measured of its gates of channels.
        model: The network.
        batches: The same images, which must be able to be asked for again.
        seed: Of what is drawn at random.
    """
    inputs, outputs = (_measured(model, batches, dict(each), seed) for each in _modules(model, batches, gates))
    return replace(gates, controls=Controls(inputs, outputs))


def _modules(model: nn.Module, batches: Iterable[Any], gates: CorrelationResult) -> tuple[Modules, Modules]:
    """By stage, the modules that put out what its gates see, and what its blocks put out; found on two images."""
    first = next(iterate_batches(batches), None)
    found = None if first is None else _found(model, inputs_of(first)[:2], gates)
    return next(each for each in all_gather(found) if each is not None)


def _found(model: nn.Module, images: Tensor, gates: CorrelationResult) -> tuple[Modules, Modules]:
    reference = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad():
        graph = watched(model, (images.to(reference.device),))
    used = [gate for gate in find_gates(graph) if gate.kind == "channel" and not gate.reason]
    stages = [stage.stage for stage in gates.stages if stage.kind == "channel" for _ in stage.layers]
    if len(used) != len(stages):  # other points than the gates were measured, or one gate multiplies twice
        return [], []
    once = _modules_that_run_once(graph)
    inputs, outputs = ([find(graph, gate, once) for gate in used] for find in (_input, _output))
    return _by_stage(stages, inputs), _by_stage(stages, outputs)


def _measured(
    model: nn.Module, batches: Iterable[Any], modules: dict[int, list[str]], seed: int
) -> dict[int, StageCorrelation]:
    """The correlation of some modules' pooled outputs, by the stage of the gates."""
    if not modules:
        return {}
    points = [f"{FEATURES}{_escaped(name)}" for names in modules.values() for name in names]
    found = measure_correlation(model, batches, points=points, seed=seed)
    return {stage: _matching(found, names) for stage, names in modules.items()}


def _modules_that_run_once(graph: Graph) -> frozenset[str]:
    runs = Counter(call.module for call in graph.calls)
    return frozenset(module for module, count in runs.items() if count == 1 and module)


def _input(graph: Graph, gate: Gate, once: frozenset[str]) -> str | None:
    """The module that puts out the features that a gate multiplies."""
    return _giver(gate.features, once)


def _output(graph: Graph, gate: Gate, once: frozenset[str]) -> str | None:
    """The module that puts out the sum with the shortcut, or the activation that follows."""
    node = _sum(graph, gate.product)
    if node is None:
        return None
    name = _giver(node, once)
    for later in graph.nodes[node.index + 1 :]:
        if plain(later.name) in ELEMENTWISE and later.made == [node]:
            node, name = later, _giver(later, once) or name
    return name


def _sum(graph: Graph, product: Node) -> Node | None:
    """The first sum of a product with what is not made of it; a product may add its shortcut itself."""
    later = (node for node in graph.nodes[product.index :] if node.shape == product.shape)
    return next((node for node in later if adds_shortcut(node, product)), None)


def _giver(node: Node, once: frozenset[str]) -> str | None:
    """The innermost module that runs once and puts a value out."""
    return next((giver.module for giver in node.givers if giver.leaf == 0 and giver.module in once), None)


def _by_stage(stages: list[int], names: list[str | None]) -> Modules:
    """The modules of each stage whose layers all have one of their own."""
    found = []
    for stage in dict.fromkeys(stages):
        modules = [name for number, name in zip(stages, names, strict=True) if number == stage]
        if all(modules) and len(set(modules)) == len(modules):
            found.append((stage, [name for name in modules if name]))
    return found


def _matching(measured: CorrelationResult, modules: list[str]) -> StageCorrelation:
    """The stage in which most of these modules are."""
    return max(measured.stages, key=lambda stage: sum(module in modules for module, _ in stage.layers))


def _escaped(name: str) -> str:
    """A module's name as a pattern that matches it alone."""
    return name.replace("[", "[[]")
