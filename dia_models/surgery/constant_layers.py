"""Layers whose gate is the same for every image by construction, that of a learned vector."""

from collections.abc import Iterator

import torch
from torch import nn

from dia_analysis.probes.found import FoundAttention
from dia_analysis.probes.gates import PRODUCTS, plain
from dia_analysis.probes.graph import Node
from dia_models.attention.constant_vector import ConstantVector
from dia_models.surgery.flow import Flow
from dia_models.surgery.means import GateLayer
from dia_models.surgery.sites import Site, own_layer

NOWHERE = -1  # among the attention that a pass shows


def constant_layers(model: nn.Module, flow: Flow, after: int) -> Iterator[tuple[GateLayer, Site]]:
    """The layers in forward order, with their gates, and where these multiply; stages are counted on from `after`."""
    modules = dict(model.named_modules())
    for call in flow.graph.calls:
        module = modules.get(call.module)
        if not isinstance(module, ConstantVector):
            continue
        with torch.no_grad():
            gate = module.constant()[0].double().cpu()
        inside = flow.inside((call.module, call.number))
        product = next(node for node in inside if plain(node.name) in PRODUCTS and len(node.shape) == 4)
        found = FoundAttention(f"{call.module}.gate", call.number, "channel", (len(gate),), product=product.place)
        place = own_layer(model, (call.module, call.number))
        if place is not None:
            site = Site(found, product, _features(product), place)
            yield GateLayer(after + place.stage + 1, place.layer + 1, found, NOWHERE, gate), site


def _features(product: Node) -> Node:
    """What the gate multiplies: the first factor; the shortcut, if it is added at once, stands before."""
    features = product.parents[PRODUCTS[plain(product.name)][0]]
    assert features is not None
    return features
