"""The maps of one layer for some images, and how they lie over these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.places import Places
from dia_analysis.results.base import Concise

Named = Literal["class", "mean"]
Query = Named | tuple[int, int] | None
Positions = Float[np.ndarray, "row column"]


@dataclass(frozen=True, repr=False)
class LayerAttention(Concise):
    """One call of one attention layer.

    `maps` has the images first: gates (image, what they vary over), self-attention (image, head, query, key), of
    windows (image, window, head, query, key). `queries` and `keys` say where the tokens lie in the image, None where
    they do not.
    """

    name: str
    call: int
    kind: str
    maps: np.ndarray
    queries: Places | None = None
    keys: Places | None = None

    def over_image(
        self, image: int, size: tuple[int, int], query: Query = None, heads: Sequence[int] | None = None
    ) -> Positions | None:
        """The map of one image at the layer's own size; None for what lies over no image, such as channels.

        Args:
            image: Which image, from 0.
            size: Its (height, width) in pixels, which a query's place refers to.
            query: Whose attention is shown: the class token's, the mean over all queries, or that of the token at
                (x, y) pixels from the upper left. By default the class token's, where there is one.
            heads: Over which heads the mean is taken, from 0; by default all.

        Raises:
            AnalysisInputError: For heads or a class token that the layer does not have, and a place outside the image.
        """
        if self.kind == "self-attention":
            return None if self.keys is None else self._attended(image, size, query, heads)
        values = self.maps[image].astype(np.float64)
        if self.kind == "map" and values.ndim == 3:
            return np.asarray(values.mean(0))
        values = np.squeeze(values)
        return values if self.kind == "spatial" and values.ndim == 2 else None

    def _attended(self, image: int, size: tuple[int, int], query: Query, heads: Sequence[int] | None) -> Positions:
        assert self.keys is not None
        weights = self._of_windows(image)[:, self._heads(heads)].mean(1, dtype=np.float64)
        windows, rows = self._rows(size, query)
        seen = weights[windows][:, rows].mean(1)
        index = self.keys.index[windows]
        flat = np.zeros(self.keys.grid[0] * self.keys.grid[1])
        np.add.at(flat, index[index >= 0], seen[index >= 0])
        return flat.reshape(self.keys.grid)

    def _of_windows(self, image: int) -> Float[np.ndarray, "window head query key"]:
        weights: np.ndarray = self.maps[image]
        return weights if weights.ndim == 4 else weights[None]

    def _heads(self, heads: Sequence[int] | None) -> list[int]:
        count = self.maps.shape[-3]
        wrong = [head for head in heads or () if not 0 <= head < count]
        if wrong:
            raise AnalysisInputError("heads", f"{wrong[0]} given; {self.name} has the heads 0 to {count - 1}")
        return list(range(count)) if heads is None else list(heads)

    def _rows(self, size: tuple[int, int], query: Query) -> tuple[list[int], list[int] | slice]:
        """The windows that are shown, and the queries in them."""
        has_class = self.maps.shape[-2] == 1 or (self.queries is not None and self.queries.before > 0)
        everything = list(range(len(self._of_windows(0))))
        if query == "class" and not has_class:
            raise AnalysisInputError("query", f"{self.name} has no class token; give 'mean', or a place in the image")
        if query == "class" or (query is None and has_class):
            return everything, [0]
        if query is None or query == "mean":
            return everything, slice(None)
        window, token = self._at(size, query)
        return [window], [token]

    def _at(self, size: tuple[int, int], place: tuple[int, int]) -> tuple[int, int]:
        x, y = place
        height, width = size
        if self.queries is None:
            raise AnalysisInputError("query", f"the queries of {self.name} do not lie over the image; give 'mean'")
        if not (0 <= x < width and 0 <= y < height):
            raise AnalysisInputError("query", f"({x}, {y}) is outside the image of {width}x{height} pixels")
        rows, columns = self.queries.grid
        where = np.argwhere(self.queries.index == (y * rows // height) * columns + x * columns // width)
        return int(where[0][0]), int(where[0][1])
