"""Where the panels of a picture stand."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dia_analysis.results.style import styled

PER_ROW = 4
WIDTH, HEIGHT, ALONE = 2.1, 2.4, (4.5, 3.0)  # inches
Panels = Sequence[Callable[[Axes], object]]


def draw_panels(panels: Panels, ax: Axes | None) -> list[Axes]:
    """Draw each panel on axes of its own: on `ax`, or several in its place; on a new figure if there is none."""
    if ax is None:
        import matplotlib.pyplot as plt

        axes = _grid(plt.figure(figsize=_size(len(panels)), layout="compressed"), len(panels))
    else:
        axes = [ax] if len(panels) == 1 else _within(ax, len(panels))
    for each, draw in zip(axes, panels, strict=True):
        draw(each)
    return axes


@styled
def draw_figure(panels: Panels, complete: Callable[[Sequence[Axes]], None]) -> Figure:
    """The panels as a figure, outside of pyplot."""
    figure = Figure(figsize=_size(len(panels)), layout="compressed")
    axes = _grid(figure, len(panels))
    for each, draw in zip(axes, panels, strict=True):
        draw(each)
    complete(axes)
    return figure


def _size(count: int) -> tuple[float, float]:
    return ALONE if count < 2 else (0.7 + WIDTH * min(count, PER_ROW), HEIGHT * -(-count // PER_ROW))


def _grid(figure: Figure, count: int) -> list[Axes]:
    columns = min(count, PER_ROW)
    return [figure.add_subplot(-(-count // PER_ROW), columns, number) for number in range(1, count + 1)]


def _within(ax: Axes, count: int) -> list[Axes]:
    ax.set_axis_off()
    if (place := ax.get_subplotspec()) is not None:
        cells = place.subgridspec(1, count, wspace=0.5)
        return [ax.figure.add_subplot(cells[number]) for number in range(count)]
    return [ax.inset_axes(((number + 0.1) / count, 0, 0.8 / count, 1)) for number in range(count)]
