"""Fig. 9: what networks look at, side by side."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from dia_analysis import GradCAMResult
from dia_analysis.cam_result import upsample
from figures.style import COLUMN, styled

ROWS = 8
WIDE = 18.1 / 2.54  # both columns of the paper, in inches
WRAP = 18  # characters of a title's line
SHORTER = 224  # pixels of an overlay's shorter side, at least
STRENGTH = 0.8  # how far the strongest heat covers the image
HEAT = colormaps["inferno"]
Picture = UInt8[np.ndarray, "height width 3"]


@styled
def heatmaps(
    results: Sequence[GradCAMResult],
    pictures: UInt8[np.ndarray, "image height width 3"],
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw a row per image (the first eight): the image, then each network's map on it, all on one colour scale.

    `pictures` are at least those first images, all of one size, to which the maps are fitted. Under a map stand the
    predicted class and its score, and the explained class if it is another. `labels` stand under the images.
    """
    images = len(results[0].images)
    rows, columns = min(images, ROWS), 1 + len(results)
    shown = [result.take(slice(rows)) for result in results]
    peak = shared_peak(shown)
    width = COLUMN if columns <= 4 else WIDE
    panel = width / columns * pictures.shape[1] / pictures.shape[2]
    figure = Figure(figsize=(width, 0.9 + rows * (panel + 0.25)), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        _picture(axes[row, 0], pictures[row])
        axes[row, 0].set_xlabel(_short(labels[row] if labels else results[0].images[row]))
        for ax, result in zip(axes[row, 1:], shown, strict=True):
            _picture(ax, overlay(pictures[row], result.layer_maps[row], peak))
            ax.set_xlabel(_verdict(result, row))
    axes[0, 0].set_title("Input")
    for ax, result in zip(axes[0, 1:], results, strict=True):
        ax.set_title(_wrapped(result.name))
    scale = ScalarMappable(Normalize(0, peak), _on_grey())
    label = f"{results[0].method}: evidence for the class, one scale for all maps"
    figure.colorbar(scale, ax=axes, label=label, location="bottom", shrink=0.8, aspect=40, pad=0.02)
    if rows < images:
        figure.suptitle(f"The first {rows} of {images} images")
    return figure


def shared_peak(results: Sequence[GradCAMResult]) -> float:
    """The largest value of all maps, where the shared scale ends; 1 if all maps are zero."""
    return max(float(result.cam_max.max()) for result in results) or 1.0


def overlay(picture: Picture, layer_map: Float[np.ndarray, "row column"], peak: float) -> Picture:
    """A map on its image in grey: the warmer and the more opaque, the nearer to `peak`; without evidence it is clear.

    The image's pixels are repeated until its shorter side has at least 224.
    """
    large = _enlarged(picture)
    size = (large.shape[0], large.shape[1])
    value = np.clip(upsample(np.maximum(layer_map, 0)[None], size)[0] / peak, 0, 1)
    opacity = STRENGTH * _rise(value)[..., None]
    mixed = (1 - opacity) * _grey(large) / 255 + opacity * HEAT(value)[..., :3]
    return np.asarray(np.rint(255 * mixed), dtype=np.uint8)


def _enlarged(picture: Picture) -> Picture:
    times = max(1, -(-SHORTER // min(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)


def _rise(value: np.ndarray) -> np.ndarray:
    """Opacity by value: a little evidence shows already, no evidence does not."""
    return np.asarray(np.sqrt(value))


def _on_grey() -> ListedColormap:
    """The colours as they look on middle grey, for the scale."""
    value = np.linspace(0, 1, 256)
    opacity = STRENGTH * _rise(value)[:, None]
    return ListedColormap((1 - opacity) * 0.5 + opacity * HEAT(value)[:, :3])


def _grey(picture: Picture) -> Picture:
    brightness = np.rint(picture @ np.array([0.299, 0.587, 0.114]))
    return np.asarray(brightness[..., None].repeat(3, -1), dtype=np.uint8)


def _picture(ax: Axes, picture: Picture) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _verdict(result: GradCAMResult, image: int) -> str:
    """The prediction and its score; the explained class if it is another; whether there is nothing to see."""
    lines = [f"{_short(result.classes[result.predicted[image]])} {result.score[image]:.2f}"]
    if result.target[image] != result.predicted[image]:
        lines.append(f"map: {_short(result.classes[result.target[image]])} {result.target_score[image]:.2f}")
    if result.empty[image]:
        lines.append("no positive evidence")
    return "\n".join(lines)


def _wrapped(name: str) -> str:
    """Broken after a dash or underscore where it is too long for a panel."""
    lines = [""]
    for part in re.split(r"(?<=[-_ /])", _short(name, 44)):
        if lines[-1] and len(lines[-1]) + len(part) > WRAP:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
