"""How many parameters a network has, without building all of it: several hundred are listed at once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dia_models.attention import AttentionKind
from dia_models.backbones.stage import AttentionPlan, Stage
from dia_models.factory import Blueprint, blueprint, build_model
from dia_models.spec import ModelSpec


class Placeholder(nn.Module):
    """Stands where the attention of some layers would be; its mark is frozen if the stage is."""

    def __init__(self, channels: int, layers: int):
        super().__init__()
        self.channels, self.layers = channels, layers
        self.mark = nn.Parameter(torch.empty(1))


class PlaceholderPlan(AttentionPlan):
    """Plans places instead of attention."""

    def attention(self, kind: AttentionKind, channels: int, layers: int) -> nn.Module:
        """A place."""
        return Placeholder(channels, layers)


@dataclass(frozen=True)
class Survey:
    """A backbone's trainable parameters, and the places of attention that is trained: channels, layers."""

    parameters: int
    places: tuple[tuple[int, int], ...]


class ParameterCounter:
    """Counts the parameters that training changes; networks with the same backbone are quick after the first."""

    def __init__(self) -> None:
        self.surveys: dict[Any, Survey] = {}

    def __call__(self, spec: ModelSpec) -> int:
        """The number for a network. Raises ModelInputError as `build_model` does."""
        plans = blueprint(spec)
        key = plans.backbone_key
        if key not in self.surveys:
            self.surveys[key] = _survey(plans)
        survey = self.surveys[key]
        return survey.parameters + sum(_attention(plans.plan, *place) for place in survey.places)


def _survey(plans: Blueprint) -> Survey:
    with torch.device("meta"):
        model = plans.build(PlaceholderPlan(plans.plan.kind, {}, plans.plan.stages, plans.plan.blocks))
    places = [module for module in model.modules() if isinstance(module, Placeholder) and module.mark.requires_grad]
    return Survey(_trainable(model) - len(places), tuple((place.channels, place.layers) for place in places))


def _attention(plan: AttentionPlan, channels: int, layers: int) -> int:
    assert plan.kind is not None
    with torch.device("meta"):
        if plan.kind.shared:
            return _trainable(plan.attention(plan.kind, channels, layers))
        return layers * _trainable(plan.attention(plan.kind, channels, 1))


def _trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def attention_layers(spec: ModelSpec) -> int:
    """How many layers of attention the stage of a network has that has most; of self-attention, all are one stage."""
    with torch.device("meta"):
        modules = list(build_model(spec).modules())
    layers = [sum(m.connected) for m in modules if isinstance(m, Stage) and m.attention is not None]
    return max([*layers, sum(isinstance(module, nn.MultiheadAttention) for module in modules)])
