"""What changes the weights: SGD or AdamW, and the learning rate of each step."""

from bisect import bisect_right
from math import cos, pi
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dia_models.attention import Attention
from dia_models.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer of all weights; those that attention modules name are not decayed.

    `momentum` is AdamW's first beta; its second is 0.999.
    """
    groups = _groups(model)
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(groups, recipe.learning_rate, betas, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups,
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int) -> LRScheduler:
    """The recipe's learning rates, step by step."""
    if recipe.schedule == "step":
        return LambdaLR(optimizer, lambda step: step_factor(recipe, step, steps_per_epoch))
    if recipe.schedule == "cosine":
        return LambdaLR(optimizer, lambda step: cosine_factor(recipe, step, steps_per_epoch))
    return LambdaLR(optimizer, lambda step: cycle_factor(step, recipe.epochs * steps_per_epoch))


def step_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by at a step (from 0): a linear warm-up, and `decay` at each milestone."""
    passed = bisect_right([round(part * recipe.epochs) for part in recipe.milestones], step // steps_per_epoch)
    return min(1.0, (step + 1) / (_rising(recipe, steps_per_epoch) + 1)) * recipe.decay**passed


def cosine_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """A linear warm-up, then down to zero along a cosine, which it reaches one step after the last."""
    rising = _rising(recipe, steps_per_epoch)
    if step < rising:
        return (step + 1) / (rising + 1)
    return _cosine(1.0, 0.0, (step - rising) / (recipe.epochs * steps_per_epoch - rising))


def cycle_factor(step: int, steps: int) -> float:
    """From 1/25 up to 1 in a quarter of the steps, then down to 4e-6, along cosines (Smith and Topin 2018).

    As torch's OneCycleLR, which divides by zero where there are four steps.
    """
    peak = max(steps / 4 - 1, 0.0)
    if step <= peak:
        return _cosine(1 / 25, 1.0, step / peak if peak else 1.0)
    return _cosine(1.0, 1 / 25e4, (step - peak) / max(steps - 1 - peak, 1.0))


def _rising(recipe: Recipe, steps_per_epoch: int) -> int:
    """The steps of the warm-up."""
    return round(recipe.warmup * recipe.epochs * steps_per_epoch)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + cos(pi * part)) / 2


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    attention = [module for module in model.modules() if isinstance(module, Attention)]
    undecayed = [p for module in attention for p in module.without_weight_decay()]
    decayed = [p for p in model.parameters() if not any(p is other for other in undecayed)]
    return [{"params": decayed}, *([{"params": undecayed, "weight_decay": 0.0}] if undecayed else [])]
