"""The attention maps of some images: drawn over these, and as arrays."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import UInt8

from dia_analysis.attention.layer import LayerAttention, Query
from dia_analysis.results.base import Result
from dia_analysis.results.output import file_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = 24  # layers in the picture of a result


@dataclass(frozen=True, repr=False)
class AttentionResult(Result):
    """The attention maps of `layers`, in forward order, for images of `size` (height, width) in pixels.

    `rolled` is the rollout of self-attention through them, as one more layer. `heads` and `query` say what is drawn;
    the layers hold all heads. `pictures` are the images as they are to be seen.
    """

    file = "attention"
    layers: tuple[LayerAttention, ...]
    rolled: LayerAttention | None
    size: tuple[int, int]
    image_names: tuple[str, ...]
    heads: tuple[int, ...] | None = None
    query: Query = None
    pictures: tuple[UInt8[np.ndarray, "height width 3"], ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def all_layers(self) -> tuple[LayerAttention, ...]:
        """The layers, and the rollout last."""
        return self.layers if self.rolled is None else (*self.layers, self.rolled)

    def pictures_of(self, image: int) -> list[np.ndarray]:
        """What is drawn of each layer: the map over the image, or else layers' numbers as a matrix (2-D)."""
        return [self._picture(layer, image) for layer in self.all_layers]

    def _picture(self, layer: LayerAttention, image: int) -> np.ndarray:
        over = layer.over_image(image, self.size, self.query, self.heads)
        if over is not None:
            return over
        values = layer.maps[image].astype(np.float64)
        if layer.kind in ("self-attention", "cross-covariance"):
            return np.asarray(values.reshape(-1, *values.shape[-2:]).mean(0))
        return np.stack([values.reshape(-1), layer.maps.astype(np.float64).mean(0).reshape(-1)])

    def summary(self) -> str:
        """A table of the layers, and which maps are not finite."""
        heads = ("layer", "call", "kind", "shape of an image's map", "lies over the image")
        rows = [
            (layer.name, str(layer.call), layer.kind, _shape(layer), "yes" if self._lies(layer) else "no")
            for layer in self.all_layers
        ]
        return "\n".join([text_table([heads, *rows], left=(0, 2, 3, 4)), *self._not_finite()])

    def _not_finite(self) -> list[str]:
        """Maps that no picture can show, of a network that has diverged."""
        first = next((layer for layer in self.all_layers if not np.isfinite(layer.maps).all()), None)
        if first is None:
            return []
        images = len(first.maps)
        bad = images - int(np.isfinite(first.maps).all(tuple(range(1, first.maps.ndim))).sum())
        return [
            f"The map of {first.name} is not finite (NaN or infinite) on {bad} of {quantity(images, 'image')}"
            f"{': this network has diverged' if bad == images else ''}."
        ]

    def _lies(self, layer: LayerAttention) -> bool:
        return layer.over_image(0, self.size) is not None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.attention/1; paths are below the folder that `save` writes."""
        images = [
            {"path": name, "layers": [self._entry(image, number) for number in range(len(self.all_layers))]}
            for image, name in enumerate(self.image_names)
        ]
        shown = list(self.query) if isinstance(self.query, tuple) else self.query
        return {
            "schema": "dia.attention/1",
            **self.provenance.to_dict(),
            "query": shown,
            "heads": None if self.heads is None else list(self.heads),
            "images": images,
        }

    def _entry(self, image: int, number: int) -> dict[str, Any]:
        layer, stem = self.all_layers[number], self._stem(image, number)
        return {
            "name": layer.name,
            "call": layer.call,
            "kind": layer.kind,
            "shape": list(layer.maps.shape[1:]),
            "array": f"arrays/{stem}.npy",
            "picture": f"pictures/{stem}.png",
        }

    def _stem(self, image: int, number: int) -> str:
        name = file_name(Path(self.image_names[image]).stem)
        return f"{image + 1:03d}-{name}-layer{number + 1:02d}"

    def datasets(self) -> Mapping[str, xr.Dataset]:
        """What is drawn of each layer, by layer: (image, row, column)."""
        drawn = [self.pictures_of(image) for image in range(len(self.image_names))]
        return {
            f"layer{number + 1:02d}": xr.Dataset(
                {"drawn": (("image", "row", "column"), np.stack([pictures[number] for pictures in drawn]))},
                {"image": list(self.image_names)},
                {"name": layer.name, "call": layer.call, "kind": layer.kind},
            )
            for number, layer in enumerate(self.all_layers)
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each layer: name, call, kind, shape."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"name": each.name, "call": each.call, "kind": each.kind, "shape": _shape(each)}
                for each in self.all_layers
            ]
        )

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The first image's maps, a panel for each layer, at most 24."""
        return [partial(self.draw, image=0, number=number) for number in range(min(DRAWN, len(self.all_layers)))]

    def draw(self, ax: "Axes", image: int, number: int) -> None:
        """One layer's map of one image."""
        from dia_analysis.explain.overlay import overlay

        layer = self.all_layers[number]
        drawn = self._picture(layer, image)
        if layer.over_image(image, self.size, self.query, self.heads) is None:
            ax.imshow(drawn, aspect="auto", interpolation="nearest")
            if len(drawn) == 2 and "attention" not in layer.kind:
                ax.set_yticks([0, 1], ["this image", "mean"])
        elif image < len(self.pictures):
            ax.imshow(overlay(self.pictures[image], drawn - drawn.min(), float(np.ptp(drawn)) or 1.0))
            ax.set(xticks=[], yticks=[])
        else:
            ax.imshow(drawn)
            ax.set(xticks=[], yticks=[])
        ax.set_title(_title(layer), fontsize="small")

    def write(
        self, folder: Path, figures: "Mapping[str, Figure] | None" = None, image_names: Iterable[str] = ()
    ) -> None:
        """Write what every result writes, the arrays of all heads, a picture for each layer and image, and the page."""
        super().write(folder, figures, image_names)
        (folder / "arrays").mkdir()
        (folder / "pictures").mkdir()
        for image, number in self._each():
            stem = self._stem(image, number)
            np.save(folder / "arrays" / f"{stem}.npy", self.all_layers[number].maps[image])
            self._save_picture(folder / "pictures" / f"{stem}.png", image, number)
        (folder / "index.html").write_text(self.page(), encoding="utf-8")

    def _each(self) -> Iterator[tuple[int, int]]:
        return ((image, number) for image in range(len(self.image_names)) for number in range(len(self.all_layers)))

    def _save_picture(self, path: Path, image: int, number: int) -> None:
        from dia_analysis.results.display import draw_figure

        draw_figure([partial(self.draw, image=image, number=number)], lambda _: None).savefig(path, dpi=100)

    def page(self) -> str:
        """The HTML page beside the pictures, with a slider for the layer."""
        from jinja2 import Environment

        text = files("dia_analysis.attention").joinpath("page.html").read_text(encoding="utf-8")
        shown = [
            {"name": name, "pictures": [self._entry(image, n)["picture"] for n in range(len(self.all_layers))]}
            for image, name in enumerate(self.image_names)
        ]
        return (
            Environment(autoescape=True)
            .from_string(text)
            .render(images=shown, titles=[_title(layer) for layer in self.all_layers], about=self.provenance.to_dict())
        )


def _shape(layer: LayerAttention) -> str:
    return " x ".join(map(str, layer.maps.shape[1:]))


def _title(layer: LayerAttention) -> str:
    return layer.name.removesuffix(":attention") + (f", call {layer.call + 1}" if layer.call else "")
