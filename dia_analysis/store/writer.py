"""Write capture stores: batch by batch, resumed after a kill, by one process or several."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import zarr
from pydantic import ValidationError
from torch import Tensor, nn

from dia_analysis.distributed import all_gather, barrier, rank, share
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.common_channels import CommonChannels
from dia_analysis.probes.found import IMAGES
from dia_analysis.probes.points import attention_of
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import stream_share
from dia_analysis.results.output import TakenError, hold_by_first, is_free, writing
from dia_analysis.results.provenance import Provenance
from dia_analysis.store.layout import (
    ABSENT,
    CAPTURED,
    LARGEST_CHUNK,
    STATUS,
    UNREADABLE,
    Array,
    Layer,
    Layout,
    StoreInfo,
    create,
    is_store,
    read_layout,
)
from dia_analysis.store.reader import CaptureStore

Located = Callable[[list[int]], Iterable[tuple[Tensor, Sequence[int]]]]
# What a capture must have in common with the one that it goes on with, and the argument that each comes from.
FIXED = {
    "checkpoint": "ckpt",
    "checkpoint_sha256": "ckpt",
    "weights_sha256": "ckpt",
    "data": "data",
    "selection": "images",
    "images": "images",
    "images_sha256": "data",
    "seed": "seed",
    "points": "points",
    "dtype": "dtype",
    "batch": "batch-size",
}


@dataclass(frozen=True)
class ImageList:
    """Which images a capture is of, in order: their names, their classes' numbers (-1: none), the classes' names."""

    names: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    def sha256(self) -> str:
        """A hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def write_store(
    path: str | Path,
    model: nn.Module,
    batches: Located,
    images: ImageList,
    *,
    batch: int = 128,
    points: str | Iterable[str] | None = None,
    dtype: Literal["float16", "float32"] = "float32",
    provenance: Provenance | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> CaptureStore:
    """Run a network over images and keep its attention maps in a new store; memory stays flat.

    Of several processes, each captures its share.

    Args:
        path: The store, a folder.
        model: The network; it is left as it was.
        batches: Is called with the positions in `images` of those to capture and yields, in that order and `batch` at a
            time, the network's input and the positions of the images in it; an image left out counts as unreadable.
        images: The names and labels of all images.
        batch: Images at a time.
        points: Shell patterns as for `capture`; by default all attention.
        dtype: `float32`, or `float16`, which halves the store and rounds the maps.
        provenance: Where network and images come from.
        resume: Go on with a store; the batches that are in it are not asked for again, and it ends up with the content
            that it would have had without the interruption.
        overwrite: Replace a store.

    Returns:
        The store, open for reading.

    Raises:
        AnalysisInputError: If `path` exists (unless `resume`, or `overwrite` and it is a capture store), if another
            process is writing it, if it cannot be written (what is captured stays), if a resumed capture is of another
            network, of other images or to be kept in another way, if a map does not fit into float16, and as
            `stream_stages`.
    """
    path, provenance = Path(path), provenance or Provenance()
    info = _describe(model, images, points, batch, dtype, provenance)
    with hold_by_first(path):
        begun = _begun(path, info, resume=resume, overwrite=overwrite)
        barrier()  # no process creates the store before all have looked whether there is one
        writer = _Writer(path, info, images, begun)
        chunks = share(writer.pending(), 1)
        writer.capture(model, batches, chunks, points)
        barrier()
        return CaptureStore.open(path)


def _describe(
    model: nn.Module,
    images: ImageList,
    points: str | Iterable[str] | None,
    batch: int,
    dtype: Literal["float16", "float32"],
    provenance: Provenance,
) -> StoreInfo:
    if not images.names:
        raise AnalysisInputError("data", "there are no images to capture")
    if images.labels is not None and len(images.labels) != len(images.names):
        raise AnalysisInputError("data", f"{len(images.labels)} labels for {len(images.names)} images")
    origin = {**provenance.to_dict(), "versions": json.dumps(provenance.versions)}
    try:
        return StoreInfo(
            images=len(images.names),
            batch=min(batch, len(images.names)),
            dtype=dtype,
            points=None if points is None else (points,) if isinstance(points, str) else tuple(points),
            classes=images.classes,
            weights_sha256=weights_sha256(model),
            images_sha256=images.sha256(),
            **origin,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise AnalysisInputError(FIXED.get(field, "data"), f"{field} {first['input']!r}: {first['msg']}") from error


def weights_sha256(model: nn.Module) -> str:
    """A hash of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _begun(path: Path, info: StoreInfo, *, resume: bool, overwrite: bool) -> Layout | None:
    """The store that is to be gone on with; None to begin one."""
    if is_free(path):
        return None
    if not resume:
        _check_replaceable(path, overwrite)
        return None
    layout = read_layout(path)
    for field, argument in FIXED.items():
        before, now = getattr(layout.info, field), getattr(info, field)
        if before != now:
            raise AnalysisInputError(
                argument, f"{path} was begun with {field} {before}, not {now}; only the same can be resumed"
            )
    return layout


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise TakenError("out", f"{path} exists; resume it, overwrite it, or choose another path")
    if not is_store(path):
        raise AnalysisInputError("out", f"{path} is no capture store, so it is not overwritten")


class _Writer:
    """Writes this process' share of the chunks of a store, each at once, and its status last."""

    def __init__(self, path: Path, info: StoreInfo, images: ImageList, begun: Layout | None):
        self.path, self.info, self.images, self.layout = path, info, images, begun
        self.group: zarr.Group | None = None
        self.rows: Sequence[int] = ()

    def pending(self) -> list[int]:
        """The chunks that are not in the store."""
        if self.layout is None:
            return list(range(-(-self.info.images // self.info.batch)))
        status, arrays = CaptureStore(self.path, self.layout).status, self.layout.layer_arrays()
        return [chunk for chunk in range(self.layout.chunks) if not self._is_there(chunk, status, arrays)]

    def _is_there(self, chunk: int, status: np.ndarray, arrays: list[Array]) -> bool:
        assert self.layout is not None
        rows = self.layout.rows(chunk)
        said = status[rows.start : rows.stop]
        return bool((said != ABSENT).all()) and (
            not (said == CAPTURED).any() or all(array.is_whole(self.path, chunk) for array in arrays)
        )

    def capture(
        self, model: nn.Module, batches: Located, chunks: list[int], points: str | Iterable[str] | None
    ) -> None:
        """Run the network over the images of these chunks and write their maps."""
        left = dict.fromkeys(chunks)
        rows = [row for chunk in chunks for row in self._rows(chunk)]
        given = iter(batches(rows) if rows else ())
        first = list(islice(given, 1))
        common = _common_channels(model, first[0][0]) if first else CommonChannels()

        def inputs() -> Iterator[Tensor]:
            for pixels, self.rows in chain(first, given):
                yield pixels

        def put(stages: list[StageMaps]) -> None:
            if self.group is None:
                self._open(_layers(stages, common))
            chunk = self._chunk_of_batch(left, len(stages[0].maps))
            self._put(chunk, stages)
            del left[chunk]

        stream_share(model, inputs(), put, points=points)
        if self.group is None:
            self._open(())
        for chunk in left:
            self._write_status(chunk, [])

    def _rows(self, chunk: int) -> range:
        return range(chunk * self.info.batch, min((chunk + 1) * self.info.batch, self.info.images))

    def _chunk_of_batch(self, left: Iterable[int], images: int) -> int:
        rows = list(self.rows)
        chunk = rows[0] // self.info.batch if rows else -1
        if chunk not in left or not set(rows) <= set(self._rows(chunk)) or sorted(set(rows)) != rows:
            raise AnalysisInputError(
                "batches",
                f"a batch holds the images {rows}; give those asked for, in order, each batch from one run of "
                f"{self.info.batch}",
            )
        if len(rows) != images:
            raise AnalysisInputError("batches", f"a batch of {images} images is said to hold {len(rows)}")
        return chunk

    def _open(self, layers: tuple[Layer, ...]) -> None:
        """Open the store, and create it first if need be. All processes do this once, with or without maps."""
        found = [each for each in all_gather(layers) if each]
        before = self.layout.layers if self.layout else (found or [()])[0]
        if not before:
            raise AnalysisInputError("data", "there are no images to capture: none can be read")
        if any(each != before for each in found):
            raise AnalysisInputError("model", "the network ran other layers than before or than in another process")
        if self.layout is None:
            self.layout = Layout(self.info, before)
            _check_size(self.layout)
            if rank() == 0:
                with writing(self.path):
                    create(self.path, self.layout, self.images.names, self.images.labels)
        elif rank() == 0:
            _remove_partial(self.path)
        barrier()
        self.group = zarr.open_group(self.path, mode="r+", use_consolidated=True)

    def _put(self, chunk: int, stages: list[StageMaps]) -> None:
        assert self.layout is not None
        layers = iter(self.layout.layers)
        for stage in stages:
            maps = _rounded(stage, self.info.dtype)
            for index in range(maps.shape[1]):
                self._write(next(layers).name, chunk, maps[:, index])
        self._write_status(chunk, self.rows)

    def _write_status(self, chunk: int, captured: Sequence[int]) -> None:
        rows = self._rows(chunk)
        status = np.full(len(rows), UNREADABLE, np.uint8)
        status[np.array(captured, dtype=np.int64) - rows.start] = CAPTURED
        self._array(STATUS, rows, status)

    def _write(self, name: str, chunk: int, maps: np.ndarray) -> None:
        rows = self._rows(chunk)
        block = np.full((len(rows), maps.shape[1]), np.nan, maps.dtype)
        block[np.array(self.rows) - rows.start] = maps
        self._array(name, rows, block)

    def _array(self, name: str, rows: range, values: np.ndarray) -> None:
        assert self.group is not None
        then = "what is captured stays; make room, then resume"
        with writing(self.path, then), zarr.config.set({"array.write_empty_chunks": True}):  # maps may be NaN all over
            self.group[name][rows.start : rows.stop] = values  # type: ignore[index]  # an array, by the layout


def _common_channels(model: nn.Module, images: Tensor) -> CommonChannels:
    """Which gates of channels are aligned, of all that the network has."""
    gates = [(one.name, one.call) for one in attention_of(model, images[:IMAGES]) if one.kind == "channel"]
    return CommonChannels.of(model, images, list(dict.fromkeys(gates)))


def _layers(stages: list[StageMaps], common: CommonChannels) -> tuple[Layer, ...]:
    aligned = [common.among(stage) for stage in stages]
    return tuple(
        Layer(
            stage=number,
            layer=index,
            kind=stage.kind,
            module=module,
            call=call,
            map_shape=stage.shape or (stage.maps.shape[2],),
            feature_size=stage.feature_size,
            made_in=str(stage.maps.dtype).removeprefix("torch."),
            sigmoid=stage.sigmoid,
            aligned=None if (among := aligned[number - 1]) is None else tuple(among[index - 1].tolist()),
        )
        for number, stage in enumerate(stages, 1)
        for index, (module, call) in enumerate(stage.layers, 1)
    )


def _check_size(layout: Layout) -> None:
    largest = max(array.chunk_bytes for array in layout.layer_arrays())
    if largest > LARGEST_CHUNK:
        raise AnalysisInputError(
            "batch-size",
            f"{layout.info.batch} images' maps of one layer take {largest / 2**30:.1f} GiB, at most 2 are written at "
            f"once; give at most {int(layout.info.batch * LARGEST_CHUNK / largest)}",
        )


def _rounded(stage: StageMaps, dtype: Literal["float16", "float32"]) -> np.ndarray:
    """A stage's maps (image, layer, element) in the store's type."""
    maps = stage.maps.to(getattr(torch, dtype))
    if dtype == "float16" and bool((maps.isinf() & stage.maps.isfinite()).any()):
        name = stage.layers[0][0]
        raise AnalysisInputError("dtype", f"the maps of {name} go beyond float16's 65,504; give dtype float32")
    return maps.cpu().numpy()


def _remove_partial(path: Path) -> None:
    """Remove files that a killed process was writing."""
    for file in path.rglob("*.partial"):
        file.unlink()
