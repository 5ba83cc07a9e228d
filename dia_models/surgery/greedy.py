"""In which order gates are given up for their means: each time the one by which the loss rises least."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isnan

import torch

from dia_models.surgery.means import Answers, GateLayer

Measure = Callable[[Sequence[GateLayer]], Answers]


@dataclass(frozen=True)
class Step:
    """One more layer whose gate is its mean, and what the network then answers to the validation images."""

    layer: GateLayer
    answers: Answers

    @property
    def loss(self) -> float:
        """The mean loss; infinite where it is not a number."""
        loss = float(self.answers.loss.mean())
        return inf if isnan(loss) else loss


@dataclass(frozen=True)
class _Known:
    """What is known of a layer: by how much the loss rose when it was given up after so many others."""

    step: Step
    rise: float
    after: int


def greedy_steps(layers: Sequence[GateLayer], measure: Measure) -> list[Step]:
    """All layers, one after the other.

    All are measured by themselves first. After each step the layer that promises most is measured again, with those
    that were given up before, until one stays ahead of what was last known of the others.
    """
    loss = float(measure([]).loss.mean())
    known = [_known(layer, [], loss, measure) for layer in layers]
    steps: list[Step] = []
    while known:
        first = min(known, key=lambda each: each.rise)
        known.remove(first)
        if first.after == len(steps):
            steps.append(first.step)
            loss = first.step.loss
        else:
            known.append(_known(first.step.layer, steps, loss, measure))
    return steps


def random_steps(layers: Sequence[GateLayer], measure: Measure, seed: int) -> list[Step]:
    """All layers in an order drawn from a seed."""
    order = torch.randperm(len(layers), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [layers[place] for place in order]
    return [Step(layer, measure(chosen[:count])) for count, layer in enumerate(chosen, 1)]


def _known(layer: GateLayer, steps: Sequence[Step], loss: float, measure: Measure) -> _Known:
    step = Step(layer, measure([*(step.layer for step in steps), layer]))
    return _Known(step, step.loss - loss, len(steps))
