"""How alike are the attention maps of two networks, layer by layer, on the same images? By CKA, which needs no channels
that correspond.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.correlation.alignment import align
from dia_analysis.correlation.chance import cka_by_chance
from dia_analysis.correlation.held import Block, HeldMaps, everyones
from dia_analysis.correlation.nulls import Chance
from dia_analysis.correlation.readings import plain
from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.stages import StageMaps
from dia_analysis.results.base import Concise
from dia_analysis.store.source import Source, open_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Across(Concise):
    """CKA between each layer of the network `a` (rows) and each of `b` (columns), over `num_images` images.

    `null` is what one pair of layers gives where the second network is shown another image.
    """

    a: str
    b: str
    layers_a: tuple[tuple[str, int], ...]
    layers_b: tuple[tuple[str, int], ...]
    matrix: Float[np.ndarray, "layer other"]
    without_gain: Float[np.ndarray, "layer other"]
    null: Chance | None
    num_images: int

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            "a": self.a,
            "b": self.b,
            "similarity": "cka",
            "images": self.num_images,
            "points_a": _points(self.layers_a),
            "points_b": _points(self.layers_b),
            "matrix": [plain(row) for row in self.matrix],
            "matrix_without_gain": [plain(row) for row in self.without_gain],
            "null": self.null and self.null.to_dict(),
        }

    def summary(self) -> str:
        """Which layer of the second network is most like each of the first."""
        chance = "" if self.null is None else f" (a pair by chance: up to {self.null.high:.3f})"
        lines = [f"CKA between the layers of {self.a} and of {self.b}, on the same images{chance}:"]
        for (module, call), row in zip(self.layers_a, self.matrix, strict=True):
            if np.isfinite(row).any():
                best = int(np.nanargmax(row))
                lines.append(f"  {_name(module, call)}: most like {_name(*self.layers_b[best])}, {row[best]:z.2f}")
            else:
                lines.append(f"  {_name(module, call)}: undefined, as its maps do not vary between images")
        return "\n".join(lines)

    def draw(self, ax: "Axes") -> None:
        """Draw the matrix; layers are numbered from 1 in forward order, over all stages."""
        rows, columns = self.matrix.shape
        extent = (0.5, columns + 0.5, rows + 0.5, 0.5)
        image = ax.imshow(self.matrix, vmin=0, vmax=1, cmap="viridis", extent=extent, aspect="auto")
        ax.set(title="CKA between networks", xlabel=f"Layer of {self.b}", ylabel=f"Layer of {self.a}")
        ax.figure.colorbar(image, ax=ax)


def measure_across(
    first: tuple[str, Source],
    second: tuple[str, Source],
    batches: tuple[Tensor | Iterable[Any] | None, Tensor | Iterable[Any] | None] = (None, None),
    *,
    points: str | Iterable[str] | None = None,
) -> Across:
    """Compare the layers of two networks, or stores, on the same images by debiased linear CKA.

    Args:
        first: A name, and a network or a capture store.
        second: Another.
        batches: The images as each of the two is to see them, in the same order; None for a store.
        points: Shell patterns of module names, by default every attention gate.

    Raises:
        AnalysisInputError: They saw another number of images, their maps take more than 1 GiB, or as
            `measure_correlation`.
    """
    maps = [_held(source, given, points) for (_, source), given in zip((first, second), batches, strict=True)]
    (stages_a, block_a), (stages_b, block_b) = maps
    if not torch.equal(block_a.groups, block_b.groups):
        raise AnalysisInputError(
            "batches",
            f"{first[0]} saw {len(block_a.groups)} images, {second[0]} {len(block_b.groups)}; show both the same, "
            "in batches of one size",
        )
    both = align(Block((*block_a.stages, *block_b.stages), block_a.groups), [*stages_a, *stages_b])
    layers_a, layers_b = (tuple(layer for stage in stages for layer in stage.layers) for stages in (stages_a, stages_b))
    some = np.s_[0, : len(layers_a), len(layers_a) :]
    null = cka_by_chance(both.images, 1)
    return Across(
        first[0], second[0], layers_a, layers_b, both.matrices[some], both.without_gain[some], null, both.images
    )


def _held(source: Source, batches: Any, points: str | Iterable[str] | None) -> tuple[list[StageMaps], Block]:
    """The stages of a network without images, and all its maps, in the same order for every network."""
    stream, _ = open_source(source, batches, points, None)
    held, layout = HeldMaps(), list[StageMaps]()

    def add(stages: list[StageMaps]) -> None:
        if not layout:
            layout.extend(stages)
        held.add(stages)
        if held.full:
            raise AnalysisInputError("batches", "the maps take more than 1 GiB; compare networks on fewer images")

    stream(add)
    known: Sequence[list[StageMaps]] = [each for each in all_gather(layout) if each]
    block = everyones(held.waiting)
    assert block is not None  # the stream raises where there are no images
    return known[0], block


def _points(layers: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"module": module, "call": call} for module, call in layers]


def _name(module: str, call: int) -> str:
    return f"{module}, call {call + 1}" if call else module
