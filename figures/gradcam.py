"""Fig. 9: what networks look at, side by side."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dia_analysis import GradCAMResult
from dia_analysis.explain.overlay import Picture, heat_on_gray, overlay, shared_peak
from dia_analysis.results.style import COLORS, COLUMN, styled

ROWS = 8
OUTLINE = COLORS[5]
Pictures = UInt8[np.ndarray, "image height width 3"]
WIDE = 18.1 / 2.54  # both columns of the paper, in inches
LETTER, LINE = 0.057, 0.125  # a letter's width and a line's height, in inches


@styled
def heatmaps(
    results: Sequence[GradCAMResult],
    pictures: Pictures | Sequence[Pictures],
    labels: Sequence[str] | None = None,
    outlines: Bool[np.ndarray, "image height width"] | None = None,
) -> Figure:
    """Draw a row per image (the first eight): the image, then each network's map on it, all on one color scale.

    `pictures` are at least those first images, all of one size, to which the maps are fitted; or a list of them, one
    for each network that sees a part of its own. The first network's stand before the maps. Under a map stand the
    predicted class and its score, and the explained class if it is another. `labels` stand under the images.
    Around what `outlines` marks in the images, such as lungs, a line is drawn.
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
    seen = [pictures] * len(results) if isinstance(pictures, np.ndarray) else pictures
    panel = width / columns * max(each.shape[1] / each.shape[2] for each in seen)
    height = 0.6 + LINE * (max(map(_lines, titles)) + sum(texts)) + rows * (panel + 0.06)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for row in range(rows):
        _picture(axes[row, 0], seen[0][row], captions[row])
        for ax, result, own, text in zip(axes[row, 1:], shown, seen, verdicts[row], strict=True):
            _picture(ax, overlay(own[row], result.layer_maps[row], peak), text)
        if outlines is not None:
            for ax in axes[row]:
                _outline(ax, outlines[row])
    scale = ScalarMappable(Normalize(0, peak), heat_on_gray())
    label = f"{results[0].method}: {results[0].meaning}, one scale for all maps"
    look: Any = {"location": "bottom", "shrink": 0.8, "aspect": 40, "pad": 0.02}
    figure.colorbar(scale, ax=axes, label=label, format=FuncFormatter(lambda value, _: f"{value:g}"), **look)
    if rows < images:
        figure.suptitle(f"The first {rows} of {images} images")
    return figure


def _picture(ax: Axes, picture: Picture, text: str) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set(xticks=[], yticks=[], xlabel=text)
    ax.spines[:].set_visible(False)


def _outline(ax: Axes, marked: Bool[np.ndarray, "height width"]) -> None:
    """A line around what is marked in the picture, which may be drawn larger."""
    height, width = ax.images[0].get_size()
    rows, columns = (
        (np.arange(n) + 0.5) * size / n - 0.5 for n, size in zip(marked.shape, (height, width), strict=True)
    )
    ax.contour(columns, rows, marked, [0.5], colors=OUTLINE, linewidths=0.7)


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
