"""Pages in one file: figures inside, no script, nothing fetched; light and dark as the reader's system is."""

from base64 import b64encode
from io import BytesIO
from typing import Any, Literal

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from figures.style import STYLE

MIME = {"svg": "image/svg+xml", "png": "image/png"}
PNG_DPI = 200


def embed(figure: Figure, alt: str, form: Literal["svg", "png"] = "svg") -> Markup:
    """A figure as an <img> that holds its own data; `alt` says what it shows to who cannot see it.

    Line drawings are best as `svg`, pictures as `png`. The same figure gives the same bytes.
    """
    buffer = BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": "dia"}):
        figure.savefig(buffer, format=form, dpi=PNG_DPI, metadata={"Date": None} if form == "svg" else {})
    data = b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="{}" src="data:{};base64,{}">').format(escape(alt), MIME[form], data)


def page(template: str, **content: Any) -> str:
    """Fill a template of figures/templates; every text is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("figures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)
