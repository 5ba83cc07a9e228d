"""What every result of an analysis can do: say it in words, draw it, write it to a folder, and give its numbers."""

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dia_analysis.results.output import new_directory, write_json
from dia_analysis.results.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED, LETTERS = 4, 60  # entries of a tuple, and letters of a value, that `repr` gives


class Concise:
    """A dataclass (with `repr=False`) whose `repr` gives the shapes of arrays, not their numbers."""

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in values.items())})"


class Result(Concise, ABC):
    """What an analysis found."""

    file: ClassVar[str]
    """The name of the files that it writes, without a suffix."""
    provenance: Provenance

    @abstractmethod
    def summary(self) -> str:
        """What came out, as text."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The JSON document: plain values, None for what is not defined."""

    @abstractmethod
    def to_dataframe(self) -> "pd.DataFrame":
        """The numbers in long form: a row for each."""

    @abstractmethod
    def datasets(self) -> "Mapping[str, xr.Dataset]":
        """The arrays with names, by the name of the file that holds them."""

    @abstractmethod
    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """What draws each panel of the picture; none where there is nothing to draw."""

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Add to the panels what stands once for all of them, such as a color bar."""

    def to_xarray(self) -> "xr.Dataset | xr.DataTree":
        """The arrays with names; where there are several stages or networks, a tree with a branch for each."""
        from xarray import DataTree

        parts = self.datasets()
        return parts[self.file] if list(parts) == [self.file] else DataTree.from_dict(dict(parts))

    def about(self) -> Mapping[str, Any]:
        """What the manifest says of it: where it comes from."""
        return self.provenance.to_dict()

    def plot(self, ax: "Axes | None" = None) -> "Axes | list[Axes]":
        """Draw it.

        Args:
            ax: Where to draw; several panels share its place. By default a new figure, with a panel for each stage.

        Returns:
            The axes, or a list of them where there is not exactly one panel.
        """
        from dia_analysis.results.display import draw_panels

        axes = draw_panels(self.panels(), ax)
        self.complete(axes)
        return axes[0] if len(axes) == 1 else axes

    def figure(self) -> "Figure | None":
        """The same picture as a figure outside of pyplot; None where there is nothing to draw."""
        from dia_analysis.results.display import draw_figure

        panels = self.panels()
        return draw_figure(panels, self.complete) if panels else None

    def save(
        self,
        directory: str | Path,
        *,
        figures: "Mapping[str, Figure] | None" = None,
        image_names: Iterable[str] = (),
        overwrite: bool = False,
    ) -> Path:
        """Write the numbers (JSON), the arrays (NetCDF), the picture (PNG and PDF) and a manifest to a new directory.

        Args:
            directory: The directory, which must not exist.
            figures: More figures, by file name without a suffix; one of the same name takes the place of the picture.
            image_names: The images' names, for `images.txt`.
            overwrite: Whether results that are there are replaced.

        Returns:
            The directory.

        Raises:
            AnalysisInputError: The directory exists and `overwrite` is false, or it holds something else than results.
        """
        path = Path(directory)
        with new_directory(path, self.about(), overwrite=overwrite) as folder:
            self.write(folder, figures, image_names)
        return path

    def write(
        self, folder: Path, figures: "Mapping[str, Figure] | None" = None, image_names: Iterable[str] = ()
    ) -> None:
        """Write what `save` writes, but for the manifest, into a folder that exists."""
        from dia_analysis.results.style import save_figure

        write_json(folder / f"{self.file}.json", self.to_dict())
        for name, arrays in self.datasets().items():
            arrays.to_netcdf(folder / f"{name}.nc", engine="scipy")
        drawn = dict(figures or {})
        if self.file not in drawn and (own := self.figure()) is not None:
            drawn[self.file] = own
        for name, figure in drawn.items():
            save_figure(figure, folder / name)
        if lines := list(image_names):
            (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _repr_html_(self) -> str:
        figure = self.figure()
        return f"<pre>{escape(self.summary())}</pre>\n{'' if figure is None else _image(figure)}"


def long_form(parts: "Sequence[tuple[Mapping[str, Any], xr.Dataset]]", *variables: str) -> "pd.DataFrame":
    """A row for every element of the variables of each part: first the part's own keys, then the coordinates."""
    import pandas as pd

    frames = []
    for keys, arrays in parts:
        frame = arrays[list(variables)].to_dataframe().reset_index()
        for place, (key, value) in enumerate(keys.items()):
            frame.insert(place, key, value)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def by_name(frames: "Mapping[Any, pd.DataFrame]", *names: str) -> "pd.DataFrame":
    """Tables below one another, with the keys of each (one, or as many as `names`) as first columns."""
    import pandas as pd

    return pd.concat(frames, names=list(names)).reset_index(list(names)).reset_index(drop=True)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {'x'.join(map(str, value.shape))}>"
    if is_dataclass(value):
        return f"{type(value).__name__}(...)"
    if isinstance(value, Mapping | tuple) and (len(value) > LISTED or any(map(is_dataclass, value))):
        return f"<{len(value)} entries>"
    text = repr(value)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}..."


def _image(figure: "Figure") -> str:
    png = BytesIO()
    figure.savefig(png, dpi=150, format="png")
    ax = figure.axes[0]
    label = escape(f"{ax.get_ylabel() or ax.get_title()} by {ax.get_xlabel()}".strip(), quote=True)
    return f'<img alt="{label}" src="data:image/png;base64,{b64encode(png.getvalue()).decode()}">'
