"""Pages in one file: figures inside, nothing fetched, no script but the page's own; light and dark."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from dia_analysis.results.output import draft_of, refuse_taken_file, writing
from dia_analysis.results.style import STYLE

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


def page(template: str, *, style: str = "", script: str = "", **content: Any) -> str:
    """Fill a template of figures/templates; every text is escaped, and a name that is missing is an error.

    `style` follows the style of all pages; both, and the `script`, are the page's own and must hold nothing that comes
    from a file. The page's policy lets browsers run this script and use this style, each by its SHA-256, and no other.
    """
    environment = Environment(
        loader=PackageLoader("figures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = source("base.css") + style
    own = {"style": Markup(style), "script": Markup(script), "policy": Markup(_policy(style, script))}
    return environment.get_template(template).render(**own, **content)


def save_page(path: Path, html: str, *, overwrite: bool = False) -> Path:
    """Write a page, whole or not at all; what a name in it holds that is no character becomes an escape.

    Raises AnalysisInputError if there is a file and `overwrite` is false, and if it cannot be written.
    """
    refuse_taken_file(path, overwrite=overwrite)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(path.resolve())
        try:
            draft.write_bytes(html.encode("utf-8", "backslashreplace"))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return path


def source(name: str) -> str:
    """A file of figures/templates as it is."""
    return (files("figures") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: pictures in the page, the style and the script with these hashes, nothing else."""
    allowed = {"img-src": "data:", "style-src": _hash(style), "script-src": _hash(script) if script else "'none'"}
    parts = ["default-src 'none'", *(f"{kind} {what}" for kind, what in allowed.items())]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
