"""What a network looks at: Grad-CAM and its relatives on any torch network (Fig. 9; Selvaraju et al. 2017)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.layer_gradient import Explained, NotReachedError, features_and_gradient
from dia_analysis.explain.methods import GRADCAM, Method, cam_method
from dia_analysis.explain.results import DRAWN, GradCAMResult, join
from dia_analysis.explain.rolled import SOURCES, rolled_maps
from dia_analysis.explain.target_layer import TargetLayer, find_target_layer, last_that_counts
from dia_analysis.explain.targets import Scores, Target, Targets, evidence, name_classes, probabilities
from dia_analysis.probes.batches import inputs_of, iterate_batches
from dia_analysis.probes.capture import refuse_scripted
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.results.provenance import Provenance

Images = Float[Tensor, "image channel height width"]
Explain = Callable[[nn.Module, Images, "_Score"], GradCAMResult]


def gradcam(
    model: nn.Module,
    batches: Tensor | Iterable[Any],
    *,
    target: Target | None = None,
    layer: str | None = None,
    call: int | None = None,
    method: str = GRADCAM,
    class_names: Sequence[str] | None = None,
    scores: Scores = "softmax",
    image_names: Sequence[str] | None = None,
    model_name: str = "network",
    provenance: Provenance | None = None,
) -> GradCAMResult:
    """Map what in each image speaks for a class, in the eyes of a network.

    The network runs in evaluation mode, without autocast, and is left as it was. Memory grows by a map of the layer's
    size per image.

    Args:
        model: The network; it returns class scores (image, class), or has them as `logits`.
        batches: One batch (image, channel, height, width), prepared as the network expects it, or what yields batches,
            as `iterate_batches` says; they are moved to the network's device.
        target: A class by number or (of `class_names`) by name, one for all or one per image; by default each image's
            predicted class.
        layer: The module to explain, by name; by default the last block that the class scores depend on.
        call: Which of the layer's applications, from 0; by default the last.
        method: One of `method_names()`; `rollout` and `gradient_rollout` go through all of a transformer's attention.
        class_names: By default the classes' numbers.
        scores: What the outputs become: `softmax`; `sigmoid` of each for findings, of which an image may have several;
            `given` where they are probabilities already.
        image_names: By default #0, #1, ...
        model_name: The network's name in tables and figures.
        provenance: Where the network and the images come from.

    Returns:
        A map at the layer's size for each image, the predicted class and the scores.

    Raises:
        AnalysisInputError: Something does not exist or does not fit, an output is not finite, or there are no images.
    """
    options: dict[str, Any] = {"target": target, "layer": layer, "call": call, "method": method}
    options |= {"class_names": class_names, "scores": scores, "model_name": model_name, "provenance": provenance}
    parts = list(stream_gradcam(model, batches, **options))
    if not parts:
        raise AnalysisInputError("images", "there are no images to explain")
    result = join(parts)
    if image_names is None:
        return result
    if len(image_names) != len(result.image_names):
        raise AnalysisInputError("image_names", f"{len(image_names)} names for {len(result.image_names)} images")
    return replace(result, image_names=tuple(image_names))


def stream_gradcam(
    model: nn.Module,
    batches: Tensor | Iterable[Any],
    *,
    target: Target | None = None,
    layer: str | None = None,
    call: int | None = None,
    method: str = GRADCAM,
    class_names: Sequence[str] | None = None,
    scores: Scores = "softmax",
    model_name: str = "network",
    provenance: Provenance | None = None,
) -> Iterator[GradCAMResult]:
    """As `gradcam`, one result per batch, so that memory does not grow with the number of images.

    Args:
        model: The network; between batches it is as it was, and may be used.
        batches: Images (batch, channel, height, width); all further arguments are those of `gradcam`.

    Yields:
        The maps of each batch.

    Raises:
        AnalysisInputError: As `gradcam`.
    """
    model = getattr(model, "_orig_mod", model)
    refuse_scripted(model)
    targets = Targets(target)
    if method in SOURCES:
        _refuse_layer(method, layer, call)
        explain: Explain = partial(_explain_rolled, method=method)
    else:
        explain = _AtLayer(layer, call, cam_method(method))
    about: dict[str, Any] = {"name": model_name, "method": method, "provenance": provenance or Provenance()}
    done = 0
    for batch in _prepared(model, batches):
        with _undisturbed(model):
            part = explain(model, batch, _Score(model, targets, class_names, done, scores))
        done += len(batch)
        yield replace(part, **about)
    targets.finish()


def _refuse_layer(method: str, layer: str | None, call: int | None) -> None:
    if layer is not None or call is not None:
        name, given = ("layer", layer) if layer is not None else ("call", call)
        raise AnalysisInputError(name, f"{given} given; {method} goes through all self-attention, so leave it out")


class _AtLayer:
    """Explains by the features of one layer: the one asked for, or the last that counts, as the first batch shows."""

    def __init__(self, layer: str | None, call: int | None, make_map: Method):
        self.layer, self.call, self.make_map = layer, call, make_map
        self.found: TargetLayer | None = None

    def __call__(self, model: nn.Module, batch: Images, score: "_Score") -> GradCAMResult:
        if self.found is None:
            self.found = find_target_layer(model, batch[:1], self.layer, self.call)
            explained = self._search(model, batch, self.found, score)
        else:
            explained = features_and_gradient(model, batch, self.found, score)
        maps = self.make_map(explained).cpu().numpy()
        return _result(batch, score, explained.logits, maps, (self.found.name, self.found.call))

    def _search(self, model: nn.Module, batch: Images, found: TargetLayer, score: "_Score") -> Explained:
        """By the layer found or, where no gradient comes back to it and none was asked for, the last where one does."""
        asked = self.layer is not None or self.call is not None
        try:
            explained = features_and_gradient(model, batch, found, score)
            if asked or explained.gradient.any():
                return explained
        except NotReachedError:
            if asked:
                raise
            explained = None
        other = last_that_counts(model, batch[:1], score.again())
        if other is None and explained is not None:
            return explained  # the scores are constant
        self.found = other or found
        return features_and_gradient(model, batch, self.found, score)


def _explain_rolled(model: nn.Module, batch: Images, score: "_Score", method: str) -> GradCAMResult:
    rolled = rolled_maps(model, batch, method, score)
    return _result(batch, score, rolled.logits, rolled.maps, (rolled.name, rolled.call))


def _result(
    batch: Images,
    score: "_Score",
    logits: Float[Tensor, "image logit"],
    maps: Float[np.ndarray, "image row column"],
    place: tuple[str, int],
) -> GradCAMResult:
    shares, done = probabilities(logits, score.scores), score.done
    predicted, chosen = score.predicted, score.chosen
    scores = [shares.gather(1, numbers[:, None])[:, 0].cpu().numpy() for numbers in (predicted, chosen)]
    return GradCAMResult(
        name="",
        layer=place[0],
        call=place[1],
        method="",
        class_names=name_classes(score.class_names, logits.shape[1]),
        image_names=tuple(f"#{done + i}" for i in range(len(batch))),
        size=(batch.shape[2], batch.shape[3]),
        layer_maps=_checked_maps(maps, place[0], done),
        predicted=predicted.cpu().numpy(),
        score=scores[0],
        target=chosen.cpu().numpy(),
        target_score=scores[1],
        pictures=tuple(map(_picture, batch[: max(DRAWN - done, 0)])),
    )


def _picture(image: Float[Tensor, "channel height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """An image as it is prepared for a network, from its darkest to its brightest value."""
    values = image.detach().float().cpu()
    low, high = values.aminmax()
    levels = ((values - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    colors = levels if len(levels) == 3 else levels.float().mean(0, keepdim=True).to(torch.uint8).expand(3, -1, -1)
    return np.ascontiguousarray(colors.permute(1, 2, 0).numpy())


class _Score:
    """One number for each image of a batch that starts at image `done`: what speaks for its target class."""

    predicted: Tensor
    chosen: Tensor

    def __init__(
        self, model: nn.Module, targets: Targets, class_names: Sequence[str] | None, done: int, scores: Scores
    ):
        self.model, self.targets, self.class_names, self.done = model, targets, class_names, done
        self.scores = scores

    def again(self) -> "_Score":
        """The same, for other images of the batch."""
        return _Score(self.model, self.targets, self.class_names, self.done, self.scores)

    def __call__(self, logits: Float[Tensor, "image logit"]) -> Float[Tensor, "image"]:
        _refuse_non_finite(self.model, logits, self.done)
        self.predicted = probabilities(logits.detach(), self.scores).argmax(1)
        self.chosen = self.targets.take(self.done, self.predicted, name_classes(self.class_names, logits.shape[1]))
        return evidence(logits, self.chosen)


def _checked_maps(
    maps: Float[np.ndarray, "image row column"], layer: str, done: int
) -> Float[np.ndarray, "image row column"]:
    bad = np.flatnonzero(~np.isfinite(maps).all((1, 2)))
    if len(bad):
        raise AnalysisInputError(
            "layer", f"the map of image #{done + bad[0]} is not finite: the gradient at {layer} is NaN or infinite"
        )
    return maps


def _refuse_non_finite(model: nn.Module, logits: Tensor, done: int) -> None:
    bad = (~logits.detach().isfinite().all(1)).nonzero()[:, 0].tolist()
    if not bad:
        return
    state = [(name, t) for name, t in chain(model.named_parameters(), model.named_buffers()) if t.is_floating_point()]
    broken = [name for name, t in state if not t.isfinite().all()]
    some = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    reason = f"its weights are not finite ({some})" if broken else "its weights are finite"
    raise AnalysisInputError("model", f"the class scores of image #{done + bad[0]} are NaN or infinite; {reason}")


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no compiled code (it ignores hooks), and gradients possible, also inside inference mode."""
    with evaluating(model), autocast_off(model), torch.inference_mode(False), torch.compiler.set_stance("force_eager"):
        yield


def _prepared(
    model: nn.Module, images: Tensor | Iterable[Any]
) -> Iterator[Float[Tensor, "image channel height width"]]:
    reference = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    size = None
    for batch in iterate_batches(images):
        inputs = inputs_of(batch)
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise AnalysisInputError(
                "images",
                f"{inputs.dtype} of shape {tuple(inputs.shape)} given; floating-point (image, channel, height, width), "
                "prepared as the network expects it, is needed",
            )
        size = size or inputs.shape[1:]
        if inputs.shape[1:] != size:
            raise AnalysisInputError(
                "images", f"a batch of {tuple(inputs.shape[1:])} after others of {tuple(size)}; give images of one size"
            )
        if len(inputs):
            with torch.inference_mode(False):
                yield inputs.to(reference.device).clone() if inputs.is_inference() else inputs.to(reference.device)
