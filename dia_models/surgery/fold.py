"""Static attention taken away for good: gates replaced by their mean, and multiplied into the layers beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dia_analysis.probes.batches import inputs_of, iterate_batches
from dia_analysis.probes.found import FoundAttention, attention_in, watched
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_models.errors import ModelInputError
from dia_models.spec import Network
from dia_models.surgery.constant_layers import constant_layers
from dia_models.surgery.flow import Flow
from dia_models.surgery.folded import Folded, LayerFate, Plan, fold
from dia_models.surgery.greedy import Step, greedy_steps, random_steps
from dia_models.surgery.means import (
    Answers,
    GateLayer,
    Labelled,
    MeanGates,
    class_scores,
    labelled_batches,
    right_answers,
)
from dia_models.surgery.sites import find_site

Announce = Callable[[int, float], object]
PASSES = 4  # of the validation images by layer, about
FAR = 1e-3  # of the largest logit, beyond which the folded network is another one; of half precision 64 eps


@dataclass(frozen=True)
class FoldingStep:
    """One more layer folded, in an order: which one, and whether the network is then right about each image."""

    stage: int
    number: int
    validation: Bool[Tensor, "validation"]
    test: Bool[Tensor, "test"] | None


@dataclass(frozen=True)
class Folding:
    """A folded network, how its layers were chosen, and what became of them.

    `greedy` is the order in which layers were given up, to the last that can be, of which the first `chosen` were
    folded; `random` is an order drawn from `seed`. `validation` and `test` say of each image whether the network was
    right before; `test_after` whether the folded one is. `deviation` is the largest difference of a logit from the
    network whose gates are replaced by their means, divided by the largest logit.
    """

    network: Folded
    before: nn.Module = field(repr=False)
    max_accuracy_drop: float
    chosen: int
    greedy: tuple[FoldingStep, ...] = field(repr=False)
    random: tuple[FoldingStep, ...] = field(repr=False)
    validation: Bool[Tensor, "validation"] = field(repr=False)
    test: Bool[Tensor, "test"] | None = field(repr=False)
    test_after: Bool[Tensor, "test"] | None = field(repr=False)
    mean_images: int
    deviation: float
    seed: int
    every: Folded = field(repr=False)

    @property
    def model(self) -> nn.Module:
        """The folded network, in the mode in which the network was given."""
        return self.network.model

    @property
    def fates(self) -> Sequence[LayerFate]:
        """What became of each layer with a gate of channels."""
        return self.network.fates

    @property
    def all_folded(self) -> nn.Module:
        """The network with every layer folded that can be, whatever its accuracy: what attention costs at most."""
        return self.every.model

    def summary(self) -> str:
        """What became of the layers, and the accuracies."""
        folded = [fate for fate in self.fates if fate.outcome in ("removed", "module runs")]
        lines = [f"{len(folded)} of {len(self.fates)} layers folded"]
        lines += [f"  {fate.stage}.{fate.number} {fate.name}: {_in_words(fate)}" for fate in self.fates]
        after = self.greedy[self.chosen - 1].validation if self.chosen else self.validation
        lines.append(f"accuracy on {len(after)} validation images: {_share(self.validation)}, now {_share(after)}")
        if self.test is not None and self.test_after is not None:
            shares = f"{_share(self.test)}, now {_share(self.test_after)}"
            lines.append(f"accuracy on {len(self.test)} test images: {shares}")
        return "\n".join(lines)


def fold_attention(
    model: nn.Module,
    batches: Any,
    validation_batches: Any = None,
    test_batches: Any = None,
    *,
    layers: Sequence[str] | None = None,
    max_accuracy_drop: float = 0.005,
    seed: int = 0,
    announce: Announce | None = None,
) -> Folding:
    """Replace gates of channels by their means over images, and multiply these into the layers beside them.

    The gate of a layer goes into the batch norm, convolution or linear layer before it, or after it where an activation
    lies between; its module is removed. Gates are found by what the network does. Where no layer can take a gate up, it
    becomes a constant that still multiplies; where the product is written in code that cannot be replaced, it stays:
    `Folding.fates` says what became of each. A recurrent module's calls are removed with all later ones of their stage;
    others still run, and only their product is folded. The gate of a learned vector (`asr_se`) is folded as it is.

    Layers are given up one after the other, each time the one by which the loss on validation images rises least, until
    the accuracy there has fallen by more than `max_accuracy_drop`.

    Args:
        model: A trained classifier of this or any library; it is left as it was.
        batches: Training images and labels (batch, channel, height, width), (batch,), which give the means.
        validation_batches: Images and labels by which layers are chosen, held in memory; by default every other one of
            the training images is taken for this.
        test_batches: Images and labels on which the accuracy is reported; by default it is not.
        layers: The layers that may be folded: "2.3" for layer 3 of stage 2, "2" for a stage; by default all.
        max_accuracy_drop: The part of the validation images by which the accuracy may fall: 0.005 is half a point.
        seed: Of the random order beside the chosen one.
        announce: Is told, before the long part, about how often the network will run over the validation images, and
            how many seconds that will take.

    Returns:
        The folded network, and how it was chosen.

    Raises:
        ModelInputError: For a network without gates of channels, or none of which can be replaced, for layers that it
            does not have, for images without labels, and if the folded network gives something else than the network
            with the means.
    """
    _check(model, max_accuracy_drop)
    means_of, validation = _parts(batches, validation_batches)
    test = None if test_batches is None else list(labelled_batches(test_batches, "test_batches"))
    flow = _watch(model, means_of[0])
    with MeanGates.of(model, seed, flow.graph) as gates:
        plans = _plans(model, flow, gates.layers(means_of) if gates.any else [])
        possible = _chosen_layers(plans, layers)
        chooser = _Chooser(gates, validation, test, announce, PASSES * len(possible))
        greedy = chooser.steps(greedy_steps(possible, chooser.measure))
        drawn = chooser.steps(random_steps(possible, chooser.measure, seed))
        before, tested = chooser.measure([]).right, chooser.tested([])
        chosen = _allowed(before, greedy, max_accuracy_drop)
        given_up = [_layer_of(possible, step) for step in greedy[:chosen]]
    network = fold(model, plans, given_up)
    after = None if test is None else right_answers(network.model, test)
    return Folding(
        network=network,
        before=model,
        max_accuracy_drop=max_accuracy_drop,
        chosen=chosen,
        greedy=greedy,
        random=drawn,
        validation=before,
        test=tested,
        test_after=after,
        mean_images=sum(map(len, means_of)),
        deviation=_deviation(model, flow, network, [plan.layer for plan in plans], validation[0][0], seed),
        seed=seed,
        every=fold(model, plans, possible),
    )


def _check(model: nn.Module, drop: float) -> None:
    if not 0 <= drop <= 1:
        raise ModelInputError("max_accuracy_drop", f"{drop:g} given; give a share of the images from 0 to 1, as 0.005")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        raise ModelInputError("model", "fold the network itself, before it is compiled or made parallel")
    folded = [m for m in model.modules() if isinstance(m, Network) and m.spec.options.get("attention_folded")]
    if folded:
        raise ModelInputError("model", "attention of this network was folded before; fold the one that it came from")


def _parts(batches: Any, validation: Any) -> tuple[list[Tensor], list[Labelled]]:
    """The images that give the means, and those by which layers are chosen."""
    if validation is not None:
        images = [inputs_of(batch) for batch in iterate_batches(batches)]
        chosen = list(labelled_batches(validation, "validation_batches"))
    else:
        given = list(labelled_batches(batches, "batches"))
        images = [part for taken, _ in given if len(part := taken[::2])]
        chosen = [(part, labels[1::2]) for taken, labels in given if len(part := taken[1::2])]
    if not images or not chosen:
        empty = "validation_batches" if images else "batches"
        raise ModelInputError(empty, "there are no images, or too few for a half that chooses layers")
    return images, chosen


def _watch(model: nn.Module, images: Tensor) -> Flow:
    device = next(model.parameters()).device
    with evaluating(model), autocast_off(model), torch.no_grad():
        return Flow(watched(model, (images.to(device),)))


def _plans(model: nn.Module, flow: Flow, layers: Sequence[GateLayer]) -> list[Plan]:
    """What can become of each layer: of those whose gates differ from image to image, and of constant ones."""
    found = {_key(one): one for one in attention_in(flow.graph)}
    sites = [(layer, find_site(model, flow, found[_key(layer.found)])) for layer in layers]
    sites += constant_layers(model, flow, max((layer.stage for layer in layers), default=0))
    if not sites:
        raise ModelInputError("model", f"{type(model).__name__} multiplies its features by no gate of channels")
    return [Plan.of(model, flow, layer, site) for layer, site in sites]


def _key(one: FoundAttention) -> tuple[str, int, int | None]:
    return one.name, one.call, one.output


def _chosen_layers(plans: Sequence[Plan], names: Sequence[str] | None) -> list[GateLayer]:
    """The layers that can be given up, of those that were named."""
    possible = [plan.layer for plan in plans if plan.possible]
    for name in names or ():
        if not any(name in (plan.layer.word, str(plan.layer.stage)) for plan in plans):
            words = ", ".join(plan.layer.word for plan in plans[:12])
            raise ModelInputError("layers", f"{name!r} given; give stages such as '2', or layers: {words}")
    chosen = [x for x in possible if names is None or {x.word, str(x.stage)} & set(names)]
    if not chosen:
        first = plans[0]
        reason = first.trouble or "no layer that can be is among those named"
        raise ModelInputError("model", f"no gate can be folded; {first.layer.found.name}: {reason}"[:290])
    return chosen


@dataclass
class _Chooser:
    """Measures the network with the means of some layers, each set of layers once."""

    gates: MeanGates
    validation: list[Labelled]
    test: list[Labelled] | None
    announce: Announce | None
    passes: int
    known: dict[frozenset[str], Answers] = field(default_factory=dict)

    def measure(self, layers: Sequence[GateLayer]) -> Answers:
        """What it answers to the validation images."""
        key = frozenset(layer.word for layer in layers)
        if key not in self.known:
            started = perf_counter()
            self.known[key] = self.gates.answers(self.validation, layers)
            if len(self.known) == 1 and self.announce is not None:
                self.announce(self.passes, self.passes * (perf_counter() - started))
        return self.known[key]

    def tested(self, layers: Sequence[GateLayer]) -> Tensor | None:
        """Whether it is right about each test image."""
        return None if self.test is None else self.gates.answers(self.test, layers).right

    def steps(self, order: Sequence[Step]) -> tuple[FoldingStep, ...]:
        """An order with the answers to the test images."""
        return tuple(self._tested_steps(order))

    def _tested_steps(self, order: Sequence[Step]) -> Iterator[FoldingStep]:
        for count, step in enumerate(order, 1):
            test = self.tested([each.layer for each in order[:count]])
            yield FoldingStep(step.layer.stage, step.layer.number, step.answers.right, test)


def _allowed(before: Tensor, steps: Sequence[FoldingStep], drop: float) -> int:
    """How many layers can be given up before the accuracy falls by more than is allowed."""
    most = drop * len(before)
    for count, step in enumerate(steps):
        if int(before.sum()) - int(step.validation.sum()) > most:
            return count
    return len(steps)


def _layer_of(layers: Sequence[GateLayer], step: FoldingStep) -> GateLayer:
    return next(layer for layer in layers if (layer.stage, layer.number) == (step.stage, step.number))


def _deviation(
    model: nn.Module, flow: Flow, network: Folded, layers: Sequence[GateLayer], images: Tensor, seed: int
) -> float:
    """How far the folded network is from that with the means. Raises ModelInputError if it is another network."""
    folded = [layer for layer, fate in zip(layers, network.fates, strict=True) if fate.outcome != "as it was"]
    with MeanGates.of(model, seed, flow.graph) as gates:
        expected = gates.outputs(images, folded).double()
    with evaluating(network.model), autocast_off(model), torch.no_grad():
        given = class_scores(network.model, images.to(next(model.parameters()).device))
    far = float((given.double() - expected).abs().max() / expected.abs().max())
    if not far <= max(FAR, 64 * torch.finfo(given.dtype).eps):
        raise ModelInputError("model", f"the folded network's largest difference is {far:.1g} of its largest logit")
    return far


def _share(right: Tensor) -> str:
    return f"{float(right.double().mean()):.1%}"


def _in_words(fate: LayerFate) -> str:
    why = f" ({fate.reason})" if fate.reason else ""
    into = f", folded into {fate.into}" if fate.into else ""
    return f"{fate.outcome}{into}{why}"
