"""Draw docs/images/found.png: what a gate and what self-attention is."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BOX = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3fa", "edgecolor": "#4477aa"}
MAP = {"boxstyle": "round,pad=0.4", "facecolor": "#fdebd9", "edgecolor": "#cc6611"}
ARROW = {"arrowstyle": "->", "color": "#555555", "shrinkA": 0, "shrinkB": 0}


def panel(ax: Axes, title: str, parts: dict[str, tuple[float, float, bool]], arrows: list[tuple[str, str]]) -> None:
    """Boxes by text: their place and whether they are the map; and the arrows between them."""
    boxes = {
        text: ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=MAP if is_map else BOX)
        for text, (x, y, is_map) in parts.items()
    }
    for start, end in arrows:
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        ax.annotate("", parts[end][:2], parts[start][:2], arrowprops=ARROW | ends)
    ax.set(title=title, xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()


def main() -> None:
    """Write the picture beside the pages."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    gate = {
        "features\n(channel, height, width)": (0.2, 0.78, False),
        "pool, layers,\nsigmoid": (0.2, 0.22, False),
        "gate\n(channel)": (0.56, 0.22, True),
        "×": (0.56, 0.78, False),
        "result": (0.88, 0.78, False),
    }
    features, squeeze, map_, product, result = gate
    panel(
        left,
        "A gate",
        gate,
        [(features, squeeze), (squeeze, map_), (map_, product), (features, product), (product, result)],
    )
    tokens = {
        "values\n(token, channel)": (0.2, 0.78, False),
        "queries · keys,\nsoftmax": (0.2, 0.22, False),
        "weights\n(query, key)": (0.56, 0.22, True),
        "weighted\nsum": (0.56, 0.78, False),
        "result": (0.88, 0.78, False),
    }
    values, scores, weights, total, result = tokens
    panel(right, "Self-attention", tokens, [(scores, weights), (weights, total), (values, total), (total, result)])
    figure.savefig(Path(__file__).parent / "images" / "found.png", dpi=150)


if __name__ == "__main__":
    main()
