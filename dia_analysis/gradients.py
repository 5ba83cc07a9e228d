"""Where do gradients vanish or explode? The gradient of the loss at each stage's output (Fig. 13 of the paper)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dia_analysis.errors import AnalysisInputError
from dia_analysis.gradient_results import GradientResult, NetworkGradients, PointGradients
from dia_analysis.magnitudes import Magnitudes, MagnitudeStatistics
from dia_analysis.probes.capture import refuse_scripted
from dia_analysis.probes.modes import rehearsing
from dia_analysis.provenance import Provenance
from dia_analysis.trace import StageOutput, find_stages, first_tensor, named_stages, trace

Images = Float[Tensor, "batch channel height width"]


def measure_gradients(
    models: nn.Module | Mapping[str, nn.Module],
    batches: Iterable[Any],
    *,
    points: str | Iterable[str] | None = None,
    per_block: bool = False,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> GradientResult:
    """Measure the gradients of one network, or of several by name on the same images; see `network_gradients`.

    For several networks `batches` must be something that can be gone through several times, such as a list.
    """
    named = models if isinstance(models, Mapping) else {type(models).__name__: models}
    measure = partial(network_gradients, batches=batches, points=points, per_block=per_block, seed=seed)
    networks = tuple(measure(model, name=name, provenance=provenance) for name, model in named.items())
    return GradientResult(networks)


def network_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    name: str = "network",
    points: str | Iterable[str] | None = None,
    per_block: bool = False,
    seed: int = 0,
    epoch: int | None = None,
    made_from: Mapping[str, Any] | None = None,
    provenance: Provenance | None = None,
) -> NetworkGradients:
    """Measure the gradient of the loss at the output of each stage, and of each block if `per_block`.

    `batches` yields (images, labels): the network's input (batch, channel, height, width), and the number of each
    image's class. The loss is the cross-entropy, averaged over a batch; the images of a smaller batch weigh as much
    as those of the first one. As in training the network runs in training mode, so batch norms use the batch's
    statistics, and dropout draws from `seed`. Its weights, gradients, buffers, modes and the random numbers that
    follow are left as they were. Memory does not grow with the number of images.

    Stages are found as `find_stages` says, or are the modules named by shell patterns (`points`). `epoch` and
    `made_from` (how the network was made, in plain values) are passed on to the result.
    Raises AnalysisInputError for batches without labels, labels that the network does not know, an output that is no
    logits, and a point that the loss does not depend on.
    """
    model = getattr(model, "_orig_mod", model)
    refuse_scripted(model)
    remaining = iter(batches)
    first = _images_and_labels(next(remaining, None))
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    root = trace(model, first[0][:2].to(device))
    stages = find_stages(root) if points is None else named_stages(root, model, points)
    probes = _Probes({call.key for stage in stages for call in _calls(stage, per_block)})
    images, loss = 0, 0.0
    with rehearsing(model, seed), probes.attached(model), torch.enable_grad():
        for batch in chain([first], map(_images_and_labels, remaining)):
            images += len(batch[0])
            loss += probes.measure(model, batch[0].to(device), batch[1].to(device), len(first[0])) * len(first[0])
    return NetworkGradients(
        name=name,
        stages=tuple(probes.result(number, None, stage.output.key) for number, stage in enumerate(stages, 1)),
        blocks=tuple(_block_results(probes, stages)) if per_block else (),
        images=images,
        batch_size=len(first[0]),
        loss=loss / images,
        seed=seed,
        epoch=epoch,
        made_from=dict(made_from or {}),
        provenance=provenance or Provenance(seed=seed),
    )


class _Probes:
    """Hooks on the outputs of chosen (module, call)s: their size going forward, their gradient coming back."""

    def __init__(self, keys: set[tuple[str, int]]):
        self.statistics = {key: MagnitudeStatistics() for key in keys}
        self.shapes: dict[tuple[str, int], tuple[int, ...]] = {}
        self.squares = dict.fromkeys(keys, 0.0)
        self.elements = dict.fromkeys(keys, 0)
        self.calls: Counter[str] = Counter()
        self.reached: set[tuple[str, int]] = set()
        self.running = False

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Hear the modules inside the block."""
        modules = dict(model.named_modules())
        with ExitStack() as hooks:
            hooks.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code calls no hooks
            for name in {name for name, _ in self.statistics}:
                hear = partial(self._hear, name)
                hooks.callback(modules[name].register_forward_hook(hear).remove)
            yield

    def measure(self, model: nn.Module, images: Images, labels: Int64[Tensor, "batch"], full: int) -> float:
        """Run one batch forth and back; give the loss: the images' sum of cross-entropies over `full`."""
        _refuse_single(model, images)
        self.calls.clear()
        self.reached.clear()
        source = images.detach().requires_grad_()  # so that every output has a gradient, also where weights are frozen
        self.running = True
        try:
            logits = model(source.clone())  # a copy, which the network may change in place
        finally:
            self.running = False  # activation checkpointing runs modules once more on the way back
        loss = F.cross_entropy(_checked(logits, labels).float(), labels, reduction="sum") / full
        if loss.requires_grad:
            torch.autograd.grad(loss, source, allow_unused=True)
        if silent := sorted(self.statistics.keys() - self.reached):
            module, call = silent[0]
            raise AnalysisInputError(
                "points",
                f"no gradient came back to the output of {module} (call {call}): the loss does not depend on it, or it "
                "does not depend on the images",
            )
        return float(loss.detach())

    def result(self, stage: int, block: int | None, key: tuple[str, int]) -> PointGradients:
        """What was found at one output."""
        rms = (self.squares[key] / self.elements[key]) ** 0.5
        magnitudes = Magnitudes(**self.statistics[key].compute())
        return PointGradients(stage, block, *key, self.shapes[key], rms, magnitudes)

    def _hear(self, name: str, _: nn.Module, __: Any, output: Any) -> None:
        key = (name, self.calls[name])
        self.calls[name] += self.running
        if not self.running or key not in self.statistics:
            return
        tensor = first_tensor(output)
        if tensor is None or not tensor.requires_grad:
            return
        values = tensor.detach()
        self.shapes[key] = tuple(values.shape[1:])
        self.squares[key] += float(torch.linalg.vector_norm(values.float())) ** 2
        self.elements[key] += values.numel()
        # A hook on the tensor belongs to its value of now, also if a later module changes it in place.
        tensor.register_hook(partial(self._take, key))  # type: ignore[no-untyped-call]

    def _take(self, key: tuple[str, int], gradient: Tensor) -> None:
        self.reached.add(key)
        self.statistics[key].update(gradient)


def _calls(stage: StageOutput, per_block: bool) -> tuple[Any, ...]:
    return (stage.output, *(stage.blocks if per_block else ()))


def _block_results(probes: _Probes, stages: list[StageOutput]) -> Iterator[PointGradients]:
    for number, stage in enumerate(stages, 1):
        for position, block in enumerate(stage.blocks, 1):
            yield probes.result(number, position, block.key)


def _images_and_labels(batch: Any) -> tuple[Images, Int64[Tensor, "batch"]]:
    if batch is None:
        raise AnalysisInputError("data", "there are no images to analyse")
    if isinstance(batch, Tensor) or len(batch) < 2 or not isinstance(batch[1], Tensor):
        raise AnalysisInputError("data", "labels are needed: give (images, labels), since the gradient is of a loss")
    images, labels = batch[0], batch[1]
    if not len(images):
        raise AnalysisInputError("data", "there is a batch without images")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.min() < 0:
        raise AnalysisInputError("data", "labels are needed: one class number, from 0, for each image")
    return images, labels.long()


def _checked(logits: Any, labels: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = f"a tensor of {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise AnalysisInputError("model", f"the network gives {given}; expected logits (batch, class)")
    if labels.max() >= logits.shape[1]:
        raise AnalysisInputError(
            "data", f"label {int(labels.max())} is beyond the network's {logits.shape[1]} classes, counted from 0"
        )
    return logits


def _refuse_single(model: nn.Module, images: Images) -> None:
    if len(images) == 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise AnalysisInputError(
            "images", "a batch of one image has no statistics for batch norm; choose another number or batch size"
        )
