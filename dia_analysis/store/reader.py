"""Read capture stores: the attention maps of many images on disk."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from dia_analysis.distributed import all_gather, rank, world_size
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.common_channels import CommonChannels
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import Consume
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.store.layout import (
    ABSENT,
    CAPTURED,
    LABELS,
    NAMES,
    STATUS,
    UNLABELLED,
    UNREADABLE,
    Layer,
    Layout,
    foreign,
    read_layout,
)

LARGEST_READ = 16 * 2**30
MIB = 2**20


@dataclass(frozen=True)
class CaptureStore:
    """A whole capture store on disk, opened for reading. Nothing in it is executed."""

    path: Path
    layout: Layout

    @classmethod
    def open(cls, path: str | Path) -> "CaptureStore":
        """Open a store. Raises AnalysisInputError if it is none, is damaged, or is not finished."""
        store = cls(Path(path), read_layout(Path(path)))
        missing = int((store.status == ABSENT).sum())
        if missing:
            raise AnalysisInputError(
                "capture",
                f"{path} is not finished: {missing} of {store.layout.info.images} images are missing; "
                "capture it again with the same options, and resume",
            )
        store._check_files()
        return store

    @property
    def provenance(self) -> Provenance:
        """Where the maps come from."""
        info = self.layout.info
        return Provenance(
            info.checkpoint, info.checkpoint_sha256, info.data, info.selection, info.seed, dict(info.versions)
        )

    @property
    def captured(self) -> int:
        """The number of images whose maps are in the store; the others could not be read."""
        return int((self.status == CAPTURED).sum())

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The names of the images that could not be read."""
        return tuple(np.array(self.names, dtype=object)[self.status == UNREADABLE])

    @cached_property
    def status(self) -> np.ndarray:
        """Whether each image was captured: 0 not yet, 1 yes, 2 it could not be read."""
        return self._read(STATUS, slice(None))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The images' names."""
        return tuple(map(str, self._read(NAMES, slice(None))))

    @cached_property
    def labels(self) -> tuple[int, ...] | None:
        """The images' classes, as numbers; None if none is known."""
        labels = self._read(LABELS, slice(None))
        return None if (labels == UNLABELLED).all() else tuple(labels.tolist())

    @cached_property
    def common_channels(self) -> CommonChannels:
        """Which layers' channel numbers mean the same, where that was known at capture."""
        known = [layer for layer in self.layout.layers if layer.aligned is not None]
        aligned = torch.zeros(len(known), len(known), dtype=torch.bool)
        for place, layer in enumerate(known):
            first = place - layer.layer + 1
            aligned[place, first : first + len(layer.aligned or ())] = torch.tensor(layer.aligned)
        return CommonChannels(tuple((layer.module, layer.call) for layer in known), aligned)

    def stages(self, rows: slice) -> list[StageMaps]:
        """The maps of some images, those that could not be read left out, grouped into stages as they were captured.

        The maps are of the type in which the store holds them, float16 or float32.
        """
        read = self.status[rows] == CAPTURED
        members: dict[int, list[Layer]] = {}
        for layer in self.layout.layers:
            members.setdefault(layer.stage, []).append(layer)
        return [self._stage(layers, rows, read) for layers in members.values()]

    def _stage(self, layers: list[Layer], rows: slice, read: np.ndarray) -> StageMaps:
        maps = np.stack([self._read(layer.name, rows)[read] for layer in layers], axis=1)
        calls = tuple((layer.module, layer.call) for layer in layers)
        first = layers[0]
        made_in = None if first.made_in is None else getattr(torch, first.made_in)
        return StageMaps(
            first.kind, calls, torch.from_numpy(maps), first.map_shape, first.feature_size, made_in, first.sigmoid
        )

    def summary(self) -> str:
        """The stages and the size on disk."""
        lines = ["stage  kind            layers  map of a layer"]
        for number in range(1, self.layout.layers[-1].stage + 1):
            layers = [layer for layer in self.layout.layers if layer.stage == number]
            shape = " x ".join(map(str, layers[0].map_shape))
            lines.append(f"{number:>5}  {layers[0].kind:<14}  {len(layers):>6}  {shape}")
        kept = f"{quantity(self.captured, 'image')}, {self.layout.info.dtype}, {self.bytes / MIB:.1f} MiB of maps"
        return "\n".join([*lines, kept])

    @property
    def bytes(self) -> int:
        """The size of the maps on disk."""
        return sum(array.chunk_bytes for array in self.layout.layer_arrays()) * self.layout.chunks

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.capture/1."""
        return {
            "schema": "dia.capture/1",
            **self.provenance.to_dict(),
            "store": str(self.path),
            "images": self.captured,
            "unreadable": list(self.unreadable),
            "dtype": self.layout.info.dtype,
            "bytes": self.bytes,
            "layers": [layer.model_dump(mode="json") for layer in self.layout.layers],
        }

    def _repr_markdown_(self) -> str:
        return "\n".join(f"    {line}" for line in self.summary().splitlines())

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r", use_consolidated=True)

    def _read(self, array: str, rows: slice) -> np.ndarray:
        try:
            return np.asarray(self._group[array][rows])  # type: ignore[index]  # the layout says that it is an array
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise foreign(self.path, f"{array} cannot be read: {error}") from error

    def _check_files(self) -> None:
        arrays = self.layout.layer_arrays()
        for chunk in range(self.layout.chunks):
            rows = self.layout.rows(chunk)
            if (self.status[rows.start : rows.stop] == CAPTURED).any():
                for array in arrays:
                    if not array.is_whole(self.path, chunk):
                        raise foreign(self.path, f"{array.file(Path(), chunk)} is missing or cut off")


def stream_store(store: CaptureStore | str | Path, consume: Consume, batch_size: int | None = None) -> int:
    """Call `consume` with a store's attention maps, `batch_size` images at a time; give the number of images.

    What `stream_stages` does with a network; `batch_size` is by default as large as when the maps were captured. Of
    several processes, each takes its share. Raises AnalysisInputError for a damaged store, and for batches that
    would take more than 16 GiB.
    """
    store = store if isinstance(store, CaptureStore) else CaptureStore.open(store)
    info = store.layout.info
    batch = min(batch_size or info.batch, info.images)
    need = batch * sum(array.shape[1] for array in store.layout.layer_arrays()) * 4
    if need > LARGEST_READ:
        raise AnalysisInputError("batch-size", f"the maps of {batch} images take {need / 2**30:.0f} GiB; give fewer")
    images = 0
    for start in range(0, info.images, batch)[rank() :: world_size()]:
        stages = store.stages(slice(start, min(start + batch, info.images)))
        if len(stages[0].maps):
            consume(stages)
            images += len(stages[0].maps)
    return sum(all_gather(images))
