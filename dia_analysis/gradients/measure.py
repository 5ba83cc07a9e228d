"""Where do gradients vanish or explode? The gradient of the loss at each stage's output (Fig. 13 of the paper)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dia_analysis.errors import AnalysisInputError
from dia_analysis.gradients.losses import Loss, given_loss, images_and_labels, images_and_targets, summed_loss
from dia_analysis.gradients.probes import Probes
from dia_analysis.gradients.results import GradientResult, NetworkGradients, PointGradients
from dia_analysis.gradients.trace import StageOutput, find_stages, named_stages, trace
from dia_analysis.probes.batches import iterate_batches
from dia_analysis.probes.capture import refuse_scripted
from dia_analysis.probes.modes import Mode, autocast_off, rehearsing
from dia_analysis.results.provenance import Provenance

Images = Float[Tensor, "batch channel height width"]
Lose = Callable[[Any], tuple[str, Tensor]]


def measure_gradients(
    models: nn.Module | Mapping[str, nn.Module],
    batches: Iterable[Any],
    *,
    points: str | Iterable[str] | None = None,
    per_block: bool = False,
    mode: Mode = "training",
    loss: Loss | None = None,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> GradientResult:
    """Measure the gradient of the loss at the output of each stage of one network, or of several on the same images.

    Args:
        models: A network, or several by name; they are left as they were.
        batches: Images (batch, channel, height, width) with labels, as `network_gradients` takes them; for several
            networks something that can be gone through several times, such as a list.
        points: Shell patterns of modules that count as stages; by default stages are found (`find_stages`).
        per_block: Also at the output of each block.
        mode: `training` or `evaluation`: batch norm with the batch's statistics, or with its stored ones.
        loss: A function of the network's output and the batch's labels that gives one number for each image, or their
            sum; output and labels may be of any kind. By default `summed_loss` chooses by what labels look like.
        seed: Of dropout.
        provenance: Where networks and images come from.

    Returns:
        The distribution of the absolute gradient at each output.

    Raises:
        AnalysisInputError: As `network_gradients`.
    """
    named = models if isinstance(models, Mapping) else {type(models).__name__: models}
    how: dict[str, Any] = {"points": points, "per_block": per_block, "mode": mode, "loss": loss, "seed": seed}
    how["provenance"] = provenance
    networks = tuple(network_gradients(model, batches, name=name, **how) for name, model in named.items())
    return GradientResult(networks)


def network_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    name: str = "network",
    points: str | Iterable[str] | None = None,
    per_block: bool = False,
    mode: Mode = "training",
    loss: Loss | None = None,
    seed: int = 0,
    epoch: int | None = None,
    weights_seed: int | None = None,
    made_from: Mapping[str, Any] | None = None,
    plain_from: Mapping[str, Any] | None = None,
    provenance: Provenance | None = None,
) -> NetworkGradients:
    """Measure the gradient of the loss at the output of each stage of one network.

    The loss is summed over a batch: the cross-entropy to class numbers, or for one logit an image and for several
    classes at once (a row of 0 and 1 an image) the binary cross-entropy; or what `loss` gives. In evaluation mode each
    image's gradient is its own and does not depend on how images are put into batches; in training mode batch norms
    use the batch's statistics, which couples its images. Autocast is off. Memory does not grow with the number of
    images.

    Args:
        model: The network; its weights, gradients, buffers, modes and the random numbers that follow stay as they were.
        batches: The network's input (batch, channel, height, width) and labels, as (images, labels) or as a dict.
        name: What the network is called.
        points: As for `measure_gradients`, as are `per_block`, `mode`, `loss`, `seed`, `provenance`.
        epoch: How long it was trained; this and the following are passed on to the result.
        weights_seed: The seed from which its weights were made or trained.
        made_from: How it was made, in plain values.
        plain_from: Of a network with DIA-LSTM, how the same without attention is made.

    Returns:
        The network's stages, and its blocks if asked for.

    Raises:
        AnalysisInputError: For batches without labels, labels that the network does not know, an output that is no
            logits, and a point that the loss does not depend on.
    """
    if mode not in get_args(Mode):
        raise AnalysisInputError("mode", f"{mode!r} given; accepted: {', '.join(get_args(Mode))}")
    model = getattr(model, "_orig_mod", model)
    refuse_scripted(model)
    remaining = iterate_batches(batches)
    if (first := next(remaining, None)) is None:
        raise AnalysisInputError("data", "there are no images to analyze")
    read = images_and_labels if loss is None else images_and_targets
    lose = summed_loss if loss is None else partial(given_loss, loss)
    some, _ = read(first)
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    root = trace(model, some[:2].to(device))
    stages = find_stages(root) if points is None else named_stages(root, model, points)
    probes = Probes({call.key for stage in stages for call in _calls(stage, per_block)})
    sizes: list[int] = []
    losses: list[tuple[str, float]] = []
    with rehearsing(model, seed, mode), autocast_off(model), probes.attached(model), torch.enable_grad():
        for images, labels in map(read, chain([first], remaining)):
            sizes.append(len(images))
            there = labels.to(device) if isinstance(labels, Tensor) else labels
            losses.append(_measure_batch(probes, model, images.to(device), partial(lose, labels=there)))
    return NetworkGradients(
        name=name,
        stages=tuple(probes.result(number, None, stage.output.key) for number, stage in enumerate(stages, 1)),
        blocks=tuple(_block_results(probes, stages)) if per_block else (),
        mode=mode,
        num_images=sum(sizes),
        batch_sizes=tuple(sorted(set(sizes), reverse=True)),
        loss_name=_one_loss({kind for kind, _ in losses}),
        loss=sum(value for _, value in losses) / sum(sizes),
        seed=seed,
        epoch=epoch,
        weights_seed=weights_seed,
        made_from=dict(made_from or {}),
        plain_from=None if plain_from is None else dict(plain_from),
        provenance=provenance or Provenance(seed=seed),
    )


def _measure_batch(probes: Probes, model: nn.Module, images: Images, lose: Lose) -> tuple[str, float]:
    """Run one batch forth and back; give what its loss is called, and the sum over its images."""
    _refuse_single(model, images)
    source = images.detach().requires_grad_()  # so that every output has a gradient, also where weights are frozen
    with probes.listening(), _blaming(model):
        output = model(source.clone())  # a copy, which the network may change in place
    name, loss = lose(output)
    if loss.requires_grad:
        torch.autograd.grad(loss, source, allow_unused=True)
    if silent := probes.silent:
        module, call = silent[0]
        raise AnalysisInputError(
            "points",
            f"no gradient came back to the output of {module} (call {call}): the loss does not depend on it, or it "
            "does not depend on the images",
        )
    return name, float(loss.detach())


@contextmanager
def _blaming(model: nn.Module) -> Iterator[None]:
    """What a network raises, such as a second head that images are too small for, becomes an error of one line."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        mode = "training" if model.training else "evaluation"
        reason = " ".join(str(error).split())[:160]
        raise AnalysisInputError(
            "model", f"it fails in {mode} mode on these images: {reason}; try larger images, or the other mode"
        ) from error


def _calls(stage: StageOutput, per_block: bool) -> tuple[Any, ...]:
    return (stage.output, *(stage.blocks if per_block else ()))


def _block_results(probes: Probes, stages: list[StageOutput]) -> Iterator[PointGradients]:
    for number, stage in enumerate(stages, 1):
        for position, block in enumerate(stage.blocks, 1):
            yield probes.result(number, position, block.key)


def _one_loss(names: set[str]) -> str:
    if len(names) > 1:
        raise AnalysisInputError("data", f"some batches have labels for {' and others for '.join(sorted(names))}")
    return names.pop()


def _refuse_single(model: nn.Module, images: Images) -> None:
    if len(images) == 1 and any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        raise AnalysisInputError(
            "images",
            "a batch of one image has no statistics for batch norm; choose another number or batch size, or evaluation "
            "mode",
        )
