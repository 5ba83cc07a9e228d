"""What r is made of: its static and its image-dependent part, the image-dependent readings, and the maps as stripes."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dia_analysis import CorrelationResult, StageCorrelation
from dia_analysis.correlation.across import Across
from dia_analysis.correlation.readings import StageReadings
from dia_analysis.results.style import COLORS, COLUMN, styled
from dia_analysis.statistics.intervals import Estimate

PARTS = {"r_from_static": ("static", COLORS[0]), "r_from_image": ("image-dependent", COLORS[4])}
READINGS = {
    "mean_r_image": ("r of deviations", "o"),
    "mean_abs_r_channel": ("|r| by channel", "^"),
    "cka": ("CKA", "D"),
}
CHANCE = "0.75"
SHADES = (1.0, 0.55, 0.3)
MOST_LAYERS = 3  # of a stage that are drawn as stripes


@styled
def correlation_parts(results: Mapping[str, CorrelationResult]) -> Figure:
    """Draw, for each stage and result, pooled r as the sum of its parts, and below the image-dependent readings.

    Bars end at the static part and at pooled r; lines are 95 % intervals for other images; gray is what chance gives.
    """
    shown = {name: result for name, result in results.items() if _with_parts(result)}
    if not shown:
        raise ValueError("no stage has two attention layers, so there is no correlation to draw")
    figure = Figure(figsize=(COLUMN, 3.6), layout="constrained")
    bars, dots = figure.subplots(2, 1, sharex=True)
    places, labels, ticks = _places(shown)
    for (*_, readings), place in zip(_each(shown), places, strict=True):
        _draw_parts(bars, readings, place)
        _draw_readings(dots, readings, place, first=place == places[0])
    for ax in (bars, dots):
        ax.axhline(0, color="0.4", lw=0.6)
        ax.tick_params(bottom=False)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.set_ylim(min(ax.get_ylim()[0], -0.05), 1.03)
    bars.set_ylabel("Pooled r")
    dots.set_ylabel("Image-dependent\nlikeness")
    dots.set_xticks(places, labels, rotation=35, ha="right", rotation_mode="anchor")
    for center, number in ticks:
        bars.text(center, 1.02, f"Stage {number}", transform=bars.get_xaxis_transform(), ha="center", va="bottom")
    handles = [bars.bar([np.nan], [0], color=color, label=f"{name} part") for name, color in PARTS.values()]
    handles += dots.get_legend_handles_labels()[0]
    if any(readings.null.chances for *_, readings in _each(shown)):
        handles.append(bars.bar([np.nan], [0], color=CHANCE, label="by chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def distance_profile(results: Mapping[str, CorrelationResult]) -> Figure:
    """Draw mean r against the distance between two layers, stage by stage, with 95 % intervals for other images.

    The band is the middle 95 % of the first result with each layer's channels in another order.
    """
    shown = [s for r in results.values() for s, _ in _with_parts(r) if s.comparable and len(s.layers) > 2]
    stages = sorted({s.stage for s in shown})
    if not stages:
        raise ValueError("no stage has three attention layers to be compared, so there is one distance at most")
    figure = Figure(figsize=(COLUMN, COLUMN / 2 + 0.2), layout="constrained")
    axes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for ax, number in zip(axes, stages, strict=True):
        for index, (name, result) in enumerate(results.items()):
            found = [readings for stage, readings in _with_parts(result) if stage.stage == number]
            for readings in found:
                _draw_profile(ax, readings, name, COLORS[index % len(COLORS)], with_chance=index == 0)
        ax.axhline(0, color="0.4", lw=0.6)
        ax.set(title=f"Stage {number}", xlabel="Distance (layers)")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].set_ylabel("Mean r")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_profile(ax: Axes, readings: StageReadings, name: str, color: str, *, with_chance: bool) -> None:
    means = readings.distances.means["mean_r"]
    places = range(1, len(means) + 1)
    ax.plot(places, [each.value for each in means], "o-", ms=2, color=color, label=name)
    for place, each in zip(places, means, strict=True):
        _interval(ax, each, place, color)
    if with_chance and readings.distances.chance:
        low, high = zip(*readings.distances.chance, strict=True)
        ax.fill_between(places, low, high, color="0.85", lw=0, label="channels permuted")


@styled
def stripes(result: CorrelationResult) -> Figure:
    """Draw the maps of the first images, an image a row and a channel a column, for up to three layers of each stage.

    A gate that does not look at the image gives stripes (Huang et al., ECCV 2024, Fig. 1).
    """
    stages = [stage for stage in result.stages if stage.kind == "channel" and len(stage.stripes) > 1]
    if not stages:
        raise ValueError("no stage has channel attention on two images, so there are no stripes to draw")
    chosen = [_spread(len(stage.layers)) for stage in stages]
    columns = max(map(len, chosen))
    figure = Figure(figsize=(COLUMN, 0.5 + 1.05 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), columns, squeeze=False)
    for row, stage, layers in zip(axes, stages, chosen, strict=True):
        shown = stage.stripes[:, layers]
        shown = shown[np.isfinite(shown)]
        low, high = np.quantile(shown, [0.01, 0.99]) if len(shown) else (0.0, 1.0)
        for ax, layer in zip(row, layers, strict=False):
            image = ax.imshow(stage.stripes[:, layer], aspect="auto", cmap="viridis", vmin=low, vmax=high)
            ax.set_title(_about(stage, layer), fontsize=6, pad=2)
            ax.set(xticks=[], yticks=[])
        for ax in row[len(layers) :]:
            ax.set_visible(False)  # it keeps its place, so that layers stand below one another
        row[0].set_ylabel(f"Stage {stage.stage}\nimages")
        figure.colorbar(image, ax=list(row), aspect=10, pad=0.02).ax.tick_params(labelsize=5)
    for ax in axes[-1, : len(chosen[-1])]:
        ax.set_xlabel("channels")
    return figure


def _with_parts(result: CorrelationResult) -> list[tuple[StageCorrelation, StageReadings]]:
    return [(s, s.readings) for s in result.stages if s.readings is not None and len(s.layers) > 1]


def _each(results: Mapping[str, CorrelationResult]) -> list[tuple[str, StageCorrelation, StageReadings]]:
    """By stage, then by result."""
    found = [(name, *pair) for name, result in results.items() for pair in _with_parts(result)]
    return sorted(found, key=lambda each: each[1].stage)


def _places(
    results: Mapping[str, CorrelationResult],
) -> tuple[list[float], list[str], list[tuple[float, int]]]:
    """Where each bar stands, the name below it, and each stage's middle and number."""
    places: list[float] = []
    labels, last = [], None
    by_stage: dict[int, list[float]] = {}
    for name, stage, _ in _each(results):
        start = places[-1] if places else 0.0
        places.append(start + (1.0 if stage.stage == last else 1.7))
        last = stage.stage
        labels.append(name)
        by_stage.setdefault(stage.stage, []).append(places[-1])
    return places, labels, [(float(np.mean(where)), number) for number, where in by_stage.items()]


def _draw_parts(ax: Axes, readings: StageReadings, place: float) -> None:
    """The two parts on top of each other; below 0 what is negative."""
    bottoms = {True: 0.0, False: 0.0}
    for name, (_, color) in PARTS.items():
        value = readings.numbers[name].value
        if np.isnan(value):
            continue
        ax.bar(place, value, 0.75, bottom=bottoms[value >= 0], color=color)
        bottoms[value >= 0] += value
    _interval(ax, readings.numbers["pooled_r"], place, "black")


def _draw_readings(ax: Axes, readings: StageReadings, place: float, first: bool) -> None:
    for index, (name, (label, marker)) in enumerate(READINGS.items()):
        number = readings.numbers.get(name)
        if number is None:
            continue
        x, color = place + 0.25 * (index - 1), COLORS[index + 1]
        if (chance := readings.null.chances.get(name)) is not None:
            height = max(chance.high - chance.low, 0.01)
            ax.bar(x, height, 0.22, bottom=chance.low, color=CHANCE)
        ax.plot(x, number.value, marker, ms=3, color=color, label=label if first else None, ls="")
        _interval(ax, number, x, color)


def _interval(ax: Axes, number: Estimate, x: float, color: str) -> None:
    if number.has_interval:
        ax.plot([x, x], [number.low, number.high], color=color, lw=0.8)


def _spread(layers: int) -> list[int]:
    """The first, the last and one between."""
    return sorted({0, layers // 2, layers - 1}) if layers > MOST_LAYERS else list(range(layers))


def _about(stage: StageCorrelation, layer: int) -> str:
    share = np.nan if stage.readings is None else stage.readings.by_layer["channel_share"][layer]
    return f"layer {layer + 1}{'' if np.isnan(share) else f': {share:.0%} static'}"


@styled
def across_networks(across: Across) -> Figure:
    """Draw CKA between the layers of two networks, those of all stages in forward order."""
    figure = Figure(figsize=(COLUMN, COLUMN * 0.8), layout="constrained")
    across.draw(figure.subplots())
    return figure
