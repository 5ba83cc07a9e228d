"""The anatomy of attention networks (Figs. 1, 3 and 5): which module serves which layer, drawn from what ran."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dia_analysis import CorrelationResult, StageCorrelation
from dia_analysis.results.style import COLORS, COLUMN, styled

SHOWN = 4  # layers of a stage that are drawn; of more, the first ones and the last
BLOCK, MODULE = COLORS[5], COLORS[4]
WIDTH, HEIGHT, PITCH, GAP = 0.7, 0.5, 1.0, 0.5


@styled
def attention_anatomy(results: Mapping[str, CorrelationResult]) -> Figure:
    """Draw a row per network and a group per stage: blocks above, and below them the attention modules that ran.

    A module that several layers call is one wide box; the arrows between its calls say that they come in this order.
    """
    figure = Figure(figsize=(COLUMN, 0.85 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        _draw_network(ax, result)
        ax.set_title(name, loc="left", fontsize=6)
    return figure


def _draw_network(ax: Axes, result: CorrelationResult) -> None:
    left = 0.0
    for stage in result.stages:
        layers = _shown(stage)
        if left:
            _arrow(ax, (left - GAP - PITCH + WIDTH, 1.2), (left, 1.2))
        _draw_stage(ax, stage, layers, left)
        left += len(layers) * PITCH + GAP
    ax.set(xlim=(-0.2, left - GAP), ylim=(-0.55, 1.6), aspect="equal")
    ax.axis("off")


def _draw_stage(ax: Axes, stage: StageCorrelation, layers: list[int | None], left: float) -> None:
    shared = len(stage.layers) > 1 and len({module for module, _ in stage.layers}) == 1
    right = left + (len(layers) - 1) * PITCH + WIDTH
    if shared:
        _box(ax, left, 0.0, right - left, MODULE, "one module")
    for position, layer in enumerate(layers):
        x = left + position * PITCH
        if position:
            _arrow(ax, (x - PITCH + WIDTH, 1.2), (x, 1.2))
        if layer is None:
            ax.text(x + WIDTH / 2, 1.2, "…", ha="center", va="center")
            continue
        _box(ax, x, 0.95, WIDTH, BLOCK, str(layer))
        if not shared:
            _box(ax, x, 0.0, WIDTH, MODULE, "")
        center = x + WIDTH / 2
        _arrow(ax, (center - 0.12, 0.95), (center - 0.12, HEIGHT))
        _arrow(ax, (center + 0.12, HEIGHT), (center + 0.12, 0.95))
    calls = f"{len(stage.layers)} layers, {len({module for module, _ in stage.layers})} module"
    plural = "" if shared or len(stage.layers) == 1 else "s"
    ax.text((left + right) / 2, -0.12, f"{calls}{plural}", ha="center", va="top", fontsize=5)


def _shown(stage: StageCorrelation) -> list[int | None]:
    """The numbers of the layers to draw, from 1; None stands for those left out."""
    count = len(stage.layers)
    return list(range(1, count + 1)) if count <= SHOWN else [*range(1, SHOWN - 1), None, count]


def _box(ax: Axes, x: float, y: float, width: float, color: str, text: str) -> None:
    box = FancyBboxPatch((x, y), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1", fc=color, ec="0.2", lw=0.5)
    ax.add_patch(box)
    ax.text(x + width / 2, y + HEIGHT / 2, text, ha="center", va="center", fontsize=6)


def _arrow(ax: Axes, tail: tuple[float, float], head: tuple[float, float]) -> None:
    ax.annotate(
        "", head, tail, arrowprops={"arrowstyle": "-|>", "lw": 0.5, "mutation_scale": 5, "shrinkA": 0, "shrinkB": 0}
    )
