"""What Grad-CAM found for some images, for one network or several side by side (Fig. 9)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, UInt8
from numpy.typing import ArrayLike

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.methods import method_source
from dia_analysis.explain.rolled import ROLLOUT
from dia_analysis.explain.upsample import upsample
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NOT_RESCALED = "(not rescaled)"
SHOWN = 20
DRAWN = 8  # images
WRONG = "✗"  # beside a predicted class that is not the image's
COARSE = 16  # positions; a map of fewer shows hardly more than left or right


@dataclass(frozen=True, repr=False)
class GradCAMResult(Result):
    """The maps of one network for some images, and what it says of them.

    `layer_maps` (image, row, column) are the maps as the method gives them: at the layer's own size, neither scaled
    nor clipped; what is negative speaks against the class. `maps` are what is usually shown. `predicted` and
    `target` are class numbers, `score` and `target_score` their probabilities (softmax; sigmoid for a single logit, and
    for findings). `size` is the images' (height, width), `image_names` their names, `call` the layer's application,
    from 0.
    `pictures` are those of the first images, on which `plot` draws their maps.
    """

    file = "gradcam"
    name: str
    layer: str
    call: int
    method: str
    class_names: tuple[str, ...]
    image_names: tuple[str, ...]
    size: tuple[int, int]
    layer_maps: Float[np.ndarray, "image row column"]
    predicted: np.ndarray
    score: np.ndarray
    target: np.ndarray
    target_score: np.ndarray
    provenance: Provenance = field(default_factory=Provenance)
    pictures: tuple[UInt8[np.ndarray, "height width 3"], ...] = ()

    @property
    def meaning(self) -> str:
        """What the maps' values are."""
        return "attention, whatever the class" if self.method == ROLLOUT else "evidence for the class"

    @property
    def maps(self) -> Float[np.ndarray, "image height width"]:
        """The maps at the images' size: negative values set to zero, otherwise not rescaled."""
        return upsample(np.maximum(self.layer_maps, 0), self.size)

    @property
    def cam_max(self) -> Float[np.ndarray, "image"]:
        """The largest value of each map at the layer's size, at least 0; between positions `maps` may stay below."""
        return np.asarray(np.maximum(self.layer_maps, 0).max((1, 2)))

    @property
    def empty(self) -> Bool[np.ndarray, "image"]:
        """Which maps are zero everywhere: nothing in the layer speaks for the class."""
        return np.asarray(self.cam_max == 0)

    def take(self, chosen: slice | ArrayLike) -> "GradCAMResult":
        """The result for some of the images."""
        index = np.arange(len(self.image_names))[chosen if isinstance(chosen, slice) else np.asarray(chosen)]
        arrays = ("layer_maps", "predicted", "score", "target", "target_score")
        parts: dict[str, Any] = {key: getattr(self, key)[index] for key in arrays}
        pictures = tuple(self.pictures[i] for i in takewhile(lambda i: i < len(self.pictures), index))
        return replace(self, image_names=tuple(self.image_names[i] for i in index), pictures=pictures, **parts)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gradcam/1."""
        return side_by_side([self])

    def datasets(self) -> dict[str, xr.Dataset]:
        """The arrays with names, as `stack_arrays` gives them."""
        return {"maps": stack_arrays([self])}

    def to_xarray(self) -> xr.Dataset:
        """The same."""
        return self.datasets()["maps"]

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each image: predicted class, score, target class, its score, and the map's peak."""
        names = ("predicted", "score", "target", "target_score", "cam_max")
        return long_form([({}, self.to_xarray())], *names)

    def summary(self) -> str:
        """A table of the images, and a sentence on those without positive evidence."""
        return summarize([self])

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The first images' maps, over the images where these are known, all on one scale."""
        first = self.take(slice(DRAWN))
        return [partial(first._draw, image=image) for image in range(len(first.image_names))]

    def _draw(self, ax: "Axes", image: int) -> None:
        from dia_analysis.explain.overlay import HEAT, overlay

        if image < len(self.pictures):
            ax.imshow(overlay(self.pictures[image], self.layer_maps[image], self.peak))
        else:
            ax.imshow(self.take([image]).maps[0], vmin=0, vmax=self.peak, cmap=HEAT)
        ax.set(title=f"{self.image_names[image]}: {_verdict(self, image)}", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)

    def complete(self, axes: "Sequence[Axes]") -> None:
        """One color scale for all maps."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        from dia_analysis.explain.overlay import HEAT, heat_on_gray

        if axes:
            colors = heat_on_gray() if self.pictures else HEAT
            scale = ScalarMappable(Normalize(0, self.take(slice(DRAWN)).peak), colors)
            axes[0].figure.colorbar(scale, ax=list(axes), label=f"{self.meaning} {NOT_RESCALED}")

    @property
    def peak(self) -> float:
        """The largest value of all maps; 1 if all are zero."""
        return float(self.cam_max.max(initial=0)) or 1.0


def join(parts: Sequence[GradCAMResult]) -> GradCAMResult:
    """The results of one network for several batches as one."""
    arrays = ("layer_maps", "predicted", "score", "target", "target_score")
    joined: dict[str, Any] = {key: np.concatenate([getattr(part, key) for part in parts]) for key in arrays}
    names, pictures = (
        tuple(chain.from_iterable(getattr(p, key) for p in parts)) for key in ("image_names", "pictures")
    )
    return replace(parts[0], image_names=names, pictures=pictures, **joined)


def side_by_side(results: Sequence[GradCAMResult]) -> dict[str, Any]:
    """Several networks' results for the same images as one document dia.gradcam/1.

    Raises AnalysisInputError if there are none or the images differ.
    """
    check_same_images(results)
    peaks = [result.cam_max.tolist() for result in results]
    images = [
        {"path": path, "models": [_entry(r, i, peak[i]) for r, peak in zip(results, peaks, strict=True)]}
        for i, path in enumerate(results[0].image_names)
    ]
    return {"schema": "dia.gradcam/1", "models": [_about(result) for result in results], "images": images}


def check_same_images(results: Sequence[GradCAMResult]) -> None:
    """Raise AnalysisInputError unless all results are for the same images, in the same order."""
    if not results:
        raise AnalysisInputError("results", "there are no results; give at least one")
    for result in results[1:]:
        if result.image_names != results[0].image_names:
            raise AnalysisInputError("results", f"{results[0].name} and {result.name} were given different images")


def _entry(result: GradCAMResult, image: int, peak: float) -> dict[str, Any]:
    return {
        "name": result.name,
        "predicted": result.class_names[result.predicted[image]],
        "score": float(result.score[image]),
        "target": result.class_names[result.target[image]],
        "target_score": float(result.target_score[image]),
        "cam_max": peak,
        "empty": bool(result.empty[image]),
    }


def _about(result: GradCAMResult) -> dict[str, Any]:
    return {
        "name": result.name,
        **result.provenance.to_dict(),
        "method": result.method,
        "method_source": method_source(result.method),
        "layer": result.layer,
        "call": result.call,
        "layer_size": list(result.layer_maps.shape[1:]),
        "image_size": list(result.size),
    }


def stack_arrays(results: Sequence[GradCAMResult]) -> xr.Dataset:
    """Several networks' maps for the same images, with names.

    `maps` (image, model, height, width) at the images' size; networks that take smaller images are upsampled to the
    largest. `layer_maps` (image, model, row, column) at the layers' own sizes, NaN beyond a smaller layer's. With
    them predicted, score, target, target_score and cam_max (image, model).
    Raises AnalysisInputError if the images differ, or are cropped to different proportions.
    """
    check_same_images(results)
    size = max(result.size for result in results)
    for result in results:
        if result.size[0] * size[1] != result.size[1] * size[0]:
            raise AnalysisInputError("results", f"{result.name} sees images of {result.size}, others of {size}")
    table = ("image", "model")
    scores = {key: (table, np.stack([getattr(r, key) for r in results], 1)) for key in ("score", "target_score")}
    named = {key: (table, np.stack([_named(r, key) for r in results], 1)) for key in ("predicted", "target")}
    unit = f"{results[0].meaning} {NOT_RESCALED}"
    maps = np.stack([result.maps if result.size == size else upsample(result.maps, size) for result in results], 1)
    return xr.Dataset(
        {
            "maps": (
                ("image", "model", "height", "width"),
                maps,
                {"long_name": unit},
            ),
            "layer_maps": (("image", "model", "row", "column"), _padded(results)),
            "cam_max": (table, np.stack([result.cam_max for result in results], 1)),
            "layer": ("model", [f"{result.layer}#{result.call}" for result in results]),
            **scores,
            **named,
        },
        coords={"image": list(results[0].image_names), "model": [result.name for result in results]},
        attrs={"method": results[0].method},
    )


def _named(result: GradCAMResult, key: str) -> np.ndarray:
    return np.array([result.class_names[number] for number in getattr(result, key)])


def _padded(results: Sequence[GradCAMResult]) -> np.ndarray:
    rows, columns = (max(result.layer_maps.shape[axis] for result in results) for axis in (1, 2))
    padded = np.full((len(results[0].image_names), len(results), rows, columns), np.nan, np.float32)
    for number, result in enumerate(results):
        padded[:, number, : result.layer_maps.shape[1], : result.layer_maps.shape[2]] = result.layer_maps
    return padded


def summarize(results: Sequence[GradCAMResult], labels: Sequence[str | None] | None = None) -> str:
    """A table of several networks' scores for the same images, and sentences on the maps.

    `labels` are the images' true classes, None where one is not known; wrong predictions are marked.
    """
    check_same_images(results)
    heads = ("image", "label", "network", "predicted", "score", "target", "its score", "map's peak")
    known = labels or [None] * len(results[0].image_names)
    peaks = [result.cam_max.tolist() for result in results]
    rows = [
        _row(result, i, known[i], peak[i])
        for i in range(len(results[0].image_names[:SHOWN]))
        for result, peak in zip(results, peaks, strict=True)
    ]
    lines = [row if any(known) else (row[0], *row[2:]) for row in (heads, *rows)]
    table = [text_table(lines, left=range(len(lines[0])))]
    if WRONG in table[0]:
        table.append(f"{WRONG} a predicted class that is not the image's label")
    more = len(results[0].image_names) - SHOWN
    notes = [f"... and {more} more images."] if more > 0 else []
    return "\n".join([*table, *notes, *(note for result in results for note in _notes(result))])


def _row(result: GradCAMResult, image: int, label: str | None, peak: float) -> tuple[str, ...]:
    predicted, target = (result.class_names[numbers[image]] for numbers in (result.predicted, result.target))
    marked = f"{predicted} {WRONG}" if label in result.class_names and label != predicted else predicted
    numbers = (f"{result.score[image]:.3f}", target, f"{result.target_score[image]:.3f}")
    peak_text = "none" if result.empty[image] else f"{peak:.3g}"
    return (result.image_names[image], label or "?", result.name, marked, *numbers, peak_text)


def _notes(result: GradCAMResult) -> Iterator[str]:
    rows, columns = result.layer_maps.shape[1:]
    call = f", call {result.call}" if result.call else ""
    yield f"{result.name}: maps of the layer {result.layer}{call}, {rows}x{columns} positions."
    if rows * columns < COARSE:
        yield (
            f"{result.name}: the maps have {rows}x{columns} positions, too few to show where things are; name an "
            f"earlier layer than {result.layer} for finer ones."
        )
    if result.empty.any():
        some = [name for name, empty in zip(result.image_names, result.empty, strict=True) if empty]
        listed = ", ".join(some[:5]) + (", ..." if len(some) > 5 else "")
        yield (
            f"{result.name}: {len(some)} of {len(result.image_names)} maps are zero everywhere ({listed}): nothing at "
            f"{result.layer} speaks for the class."
        )


def _verdict(result: GradCAMResult, image: int) -> str:
    text = f"{result.class_names[result.target[image]]} {result.target_score[image]:.2f}"
    return f"{text}, no positive evidence" if result.empty[image] else text
