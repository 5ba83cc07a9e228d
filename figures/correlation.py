"""Fig. 2: how strongly the attention maps of a stage's layers correlate."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dia_analysis import CorrelationResult, StageCorrelation, pearson
from dia_analysis.correlation.results import r_text
from dia_analysis.paper.numbers import MEAN_R
from dia_analysis.results.style import COLORS, COLUMN, styled

DRAWN_BINS = 2**8
MARKERS = ("o", "s", "^", "D")
PER_ROW = 3
MOST_POINTS = 1000  # of an image: more hide each other


@styled
def matrices(result: CorrelationResult) -> Figure:
    """Draw one matrix (layers x layers) per stage with two layers to be compared: the mean r over the images."""
    stages = _some([stage for stage in result.stages if stage.has_r])
    rows = -(-len(stages) // PER_ROW)
    columns = min(len(stages), PER_ROW)
    figure = Figure(figsize=(COLUMN, 0.25 + rows * COLUMN / 2.9), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(stages) :]:
        ax.remove()
    drawn = list(axes.flat[: len(stages)])
    for ax, stage in zip(drawn, stages, strict=True):
        stage.draw(ax)
        ax.set_ylabel("Layer" if ax is drawn[0] else "")
    figure.colorbar(drawn[0].images[0], ax=drawn, label="Pearson r", shrink=0.8, aspect=12)
    return figure


@styled
def distribution(results: Mapping[str, CorrelationResult]) -> Figure:
    """Draw the distribution of r over images and layer pairs (Fig. 2c), stage by stage, one color per result."""
    stages = sorted({stage.stage for result in results.values() for stage in _comparable(result)})
    figure = Figure(figsize=(COLUMN, 0.6 + 0.6 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
    for ax, number in zip(axes, stages, strict=True):
        for color, (name, result) in zip(COLORS, results.items(), strict=False):
            _draw_histogram(ax, result.stages[number - 1], name, color)
        ax.axvline(MEAN_R, color="0.4", lw=0.8, ls="--", label=f"paper's mean ({MEAN_R})")
        means = [f"{name} {r_text(result.stages[number - 1].mean_r)}" for name, result in results.items()]
        ax.text(0.01, 0.08, "mean r\n" + "\n".join(means), transform=ax.transAxes, fontsize=6, va="bottom")
        ax.set(yticks=[], ylabel=f"Stage {number}", xlim=(-1, 1))
        ax.spines["left"].set_visible(False)
    columns = min(len(results) + 1, 3 if len(results) < 3 else 2)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    axes[-1].set_xlabel("Pearson r between the attention maps of two layers")
    return figure


@styled
def scatter(result: CorrelationResult, seed: int = 0) -> Figure:
    """Draw two layers' maps against each other, for the first images, in the first and last stage (Fig. 2a-b).

    A point is one element of a map, such as a channel; the two layers are drawn at random, from `seed`, and so are
    1,000 elements where there are more. The numbers r are over all elements.
    """
    stages = _comparable(result)
    shown = stages if len(stages) < 2 else (stages[0], stages[-1])
    figure = Figure(figsize=(COLUMN, COLUMN / 2 + 0.4), layout="constrained")
    random = np.random.default_rng(seed)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, stage in zip(axes, shown, strict=True):
        first, second = sorted(random.choice(len(stage.layers), 2, replace=False))
        elements = stage.examples.shape[2]
        some = slice(None) if elements <= MOST_POINTS else random.choice(elements, MOST_POINTS, replace=False)
        for image, (maps, marker, color) in enumerate(zip(stage.examples, MARKERS, COLORS, strict=False), 1):
            style = {"ms": 2, "mew": 0, "alpha": 0.7, "color": color, "label": f"image {image}"}
            ax.plot(maps[first, some], maps[second, some], marker, **style)
        ax.set(xlabel=f"Attention in layer {first + 1}", ylabel=f"Attention in layer {second + 1}")
        each = [_pearson(maps[first], maps[second]) for maps in stage.examples]
        ax.set_title(f"Stage {stage.stage}\nr = {', '.join(each)}", fontsize=6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=1.5)
    return figure


def _comparable(result: CorrelationResult) -> list[StageCorrelation]:
    return _some([stage for stage in result.stages if stage.comparable])


def _some(stages: list[StageCorrelation]) -> list[StageCorrelation]:
    if not stages:
        raise ValueError("no stage has two attention layers to be compared, so there is no correlation to draw")
    return stages


def _draw_histogram(ax: Axes, stage: StageCorrelation, name: str, color: str) -> None:
    counts = stage.histogram.reshape(DRAWN_BINS, -1).sum(1)
    if not counts.any():
        return
    edges = np.linspace(-1, 1, DRAWN_BINS + 1)
    ax.stairs(counts / counts.max(), edges, fill=True, color=color, alpha=0.35)
    ax.stairs(counts / counts.max(), edges, color=color, label=name)


def _pearson(a: np.ndarray, b: np.ndarray) -> str:
    r, defined = pearson(torch.from_numpy(np.stack([a, b])[None]))
    return r_text(r[0, 0, 1].item()) if defined[0, 0, 1] else "undefined"
