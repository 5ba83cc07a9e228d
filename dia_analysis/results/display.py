"""How results show themselves: in a notebook, and on axes of their own."""

from abc import ABC, abstractmethod
from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES, DPI = (4.5, 3.0), 110


class Displayed(ABC):
    """A result that a notebook shows as its table and its figure."""

    @abstractmethod
    def summary(self) -> str:
        """What came out, as text."""

    @abstractmethod
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw it."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.summary())}</pre>\n{_image(self)}"


def axes(ax: "Axes | None") -> "Axes":
    """The axes given, or new ones."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def _image(result: Displayed) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    ax = result.plot(figure.subplots())
    if not ax.has_data():
        return ""
    png = BytesIO()
    figure.savefig(png, dpi=DPI, format="png")
    label = escape(f"{ax.get_ylabel() or ax.get_title()} by {ax.get_xlabel()}".strip(), quote=True)
    return f'<img alt="{label}" src="data:image/png;base64,{b64encode(png.getvalue()).decode()}">'
