"""One look for all figures: readable at the width of a paper's column, safe for color-blind readers."""

import re
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from cycler import cycler
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

COLUMN = 8.8 / 2.54  # one column of the paper, in inches
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
DPI = 300  # of PNG files
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names of files and checkpoints may hold dollar signs
}
RAISED = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this look, without changing the caller's settings."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def logarithmic(axis: Axis) -> None:
    """Label a log axis with powers of ten in plain letters, as this look reads no dollar signs."""
    axis.set_major_formatter(_Powers())
    axis.set_minor_formatter(_Powers(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


class _Powers(LogFormatterSciNotation):
    """10⁻³ and 2×10⁻³."""

    def __call__(self, x: float, pos: Any = None) -> str:
        text = re.sub(r"[$]|\\mathdefault|}$", "", super().__call__(x, pos)).replace(r"\times", "×")
        return re.sub(r"\^{(.*?)}+", lambda power: power[1].translate(RAISED), text).replace("{", "").replace("}", "")


def save_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png (at `DPI`) and `path`.pdf, the same bytes for the same figure."""
    forms: dict[str, dict[str, Any]] = {"png": {"dpi": DPI}, "pdf": {"metadata": {"CreationDate": None}}}
    engine = figure.get_layout_engine()
    try:
        with mpl.rc_context(STYLE):
            for form, options in forms.items():
                drawn = BytesIO()  # drawing into a file on a full disk fails with an error that hides why
                figure.savefig(drawn, format=form, **options)
                path.with_suffix(f".{form}").write_bytes(drawn.getvalue())
                figure.set_layout_engine(None)  # laying out takes as long as drawing, and once is enough
    finally:
        figure.set_layout_engine(engine)
