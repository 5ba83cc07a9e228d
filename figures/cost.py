"""Section VI-B1: what attention adds to a backbone's time, operations and parameters."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dia_analysis import CostResult, NetworkCost
from dia_analysis.results.style import COLORS, COLUMN, styled

QUANTITIES = ("time of a forward pass, 95 % interval", "FLOPs", "parameters")
MARKERS = ("o", "s", "D")


@styled
def cost_ratios(result: CostResult) -> Figure:
    """Draw time, FLOPs and parameters of each network, relative to its backbone without attention."""
    by_name = {network.name: network for network in result.networks}
    compared = [network for network in result.networks if network.baseline not in (None, network.name)]
    if not compared:
        raise ValueError("no network has another one as its baseline, so there is no ratio to draw")
    figure = Figure(figsize=(COLUMN, 0.75 + 0.28 * len(compared)), layout="constrained")
    ax = figure.subplots()
    for position, network in enumerate(compared):
        _draw(ax, position, network, by_name[str(network.baseline)])
    ax.axvline(1.0, color="0.5", lw=0.8, zorder=0)
    ax.set_yticks(range(len(compared)), [network.name for network in compared])
    ax.set_ylim(len(compared) - 0.5, -0.5)
    figure.supxlabel("Relative to the same backbone without attention", fontsize=7)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles[: len(QUANTITIES)], labels[: len(QUANTITIES)], loc="outside upper center", ncols=3)
    return figure


def _draw(ax: Axes, position: int, network: NetworkCost, baseline: NetworkCost) -> None:
    assert network.latency_ratio is not None
    assert network.interval is not None
    ratios = (network.latency_ratio, network.flops / baseline.flops, network.parameters / baseline.parameters)
    ax.plot(network.interval, [position - 0.2] * 2, "-", color=COLORS[0], lw=1.5)
    for row, (ratio, marker, color, label) in enumerate(zip(ratios, MARKERS, COLORS, QUANTITIES, strict=False)):
        ax.plot([ratio], [position + 0.2 * (row - 1)], marker, ms=3, color=color, label=label)
