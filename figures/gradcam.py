"""Fig. 9: what networks look at, side by side."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dia_analysis import GradCAMResult
from dia_analysis.explain.results import upsample
from figures.style import COLUMN, styled

ROWS = 8
WIDE = 18.1 / 2.54  # both columns of the paper, in inches
LETTER, LINE = 0.057, 0.125  # a letter's width and a line's height, in inches
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
    images = len(results[0].image_names)
    rows, columns = min(images, ROWS), 1 + len(results)
    shown = [result.take(slice(rows)) for result in results]
    peak = shared_peak(shown)
    width = COLUMN if columns <= 4 else WIDE
    letters = int(width / columns / LETTER)
    titles = [_wrapped(title, letters) for title in ("Input", *(result.name for result in results))]
    captions = [_shortened(text, letters) for text in (labels or results[0].image_names)[:rows]]
    verdicts = [[_verdict(result, row, letters) for result in shown] for row in range(rows)]
    texts = [max(map(_lines, row)) for row in zip(captions, *zip(*verdicts, strict=True), strict=True)]
    panel = width / columns * pictures.shape[1] / pictures.shape[2]
    height = 0.6 + LINE * (max(map(_lines, titles)) + sum(texts)) + rows * (panel + 0.06)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for row in range(rows):
        _picture(axes[row, 0], pictures[row], captions[row])
        for ax, result, text in zip(axes[row, 1:], shown, verdicts[row], strict=True):
            _picture(ax, overlay(pictures[row], result.layer_maps[row], peak), text)
    scale = ScalarMappable(Normalize(0, peak), _on_grey())
    label = f"{results[0].method}: evidence for the class, one scale for all maps"
    look: Any = {"location": "bottom", "shrink": 0.8, "aspect": 40, "pad": 0.02}
    figure.colorbar(scale, ax=axes, label=label, format=FuncFormatter(lambda value, _: f"{value:g}"), **look)
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


def _picture(ax: Axes, picture: Picture, text: str) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set(xticks=[], yticks=[], xlabel=text)
    ax.spines[:].set_visible(False)


def _verdict(result: GradCAMResult, image: int, letters: int) -> str:
    """The prediction and its score; the explained class if it is another; whether there is nothing to see."""
    predicted, target = (result.class_names[numbers[image]] for numbers in (result.predicted, result.target))
    parts = [f"{predicted} {result.score[image]:.2f}"]
    if target != predicted:
        parts.append(f"map: {target} {result.target_score[image]:.2f}")
    if result.empty[image]:
        parts.append("no positive evidence")
    return "\n".join(_wrapped(part, letters) for part in parts)


def _wrapped(text: str, letters: int) -> str:
    """In lines of at most so many letters, broken after spaces and dashes; a longer word loses its beginning."""
    lines: list[str] = []
    for part in re.split(r"(?<=[-_ /])", text):
        if not lines or len(lines[-1]) + len(part.rstrip()) > letters:
            lines.append("")
        lines[-1] += part
    return _shortened("\n".join(line.strip() for line in lines), letters)


def _shortened(text: str, letters: int) -> str:
    """The ends of lines that are longer."""
    return "\n".join(line if len(line) <= letters else f"…{line[1 - letters :]}" for line in text.split("\n"))


def _lines(text: str) -> int:
    return text.count("\n") + 1
