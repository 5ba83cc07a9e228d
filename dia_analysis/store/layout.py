"""What a capture store is on disk: a Zarr group that plain xarray opens, and what a stranger's must pass before use.

Every layer is an array (image, element) cut along the images, one chunk per captured batch. `image` holds the images'
names, `label` their classes, and `status` says of each whether its maps are there. Chunks are not compressed and end
in a checksum, so a file's size is known from the metadata: nothing in a store is executed, and nothing can unpack to
more than lies on disk.
"""

import json
import shutil
import stat
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, ValidationError
from zarr.codecs import Crc32cCodec

from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.output import draft_of, put_in_place

NAMES, LABELS, STATUS = "image", "label", "status"
ABSENT, CAPTURED, UNREADABLE = 0, 1, 2
UNLABELLED = -1
LARGEST_METADATA = 16 * 2**20
LARGEST_CHUNK = 2 * 2**30
CHECKSUM = 4  # bytes at a chunk's end


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds control characters")
    return text


Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
Size = Annotated[int, Field(ge=1, le=2**31)]


class StoreInfo(BaseModel):
    """What a store says of itself as a whole: where its maps come from, of which images, and how they are kept.

    `batch` is the number of images of a chunk. The hashes tell whether a capture goes on with the same network and
    the same images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["dia.capture/1"] = "dia.capture/1"
    images: Annotated[int, Field(ge=1, le=10**7)]
    batch: Annotated[int, Field(ge=1, le=2**16)]
    dtype: Literal["float16", "float32"]
    points: tuple[Text, ...] | None = None
    classes: tuple[Text, ...] = ()
    weights_sha256: Text
    images_sha256: Text
    checkpoint: Text | None = None
    checkpoint_sha256: Text | None = None
    data: Text | None = None
    selection: Text | None = None
    seed: int | None = None
    versions: Json[dict[Text, Text]]


class Layer(BaseModel):
    """One layer's array: its place, numbered from 1, the module's call behind it, and the shape of an image's map.

    `made_in` is the type in which the network made the map, which the store's may be finer than. `aligned` says of
    each layer of the stage whether its channel numbers mean the same as here; None where that is not known. `sigmoid`
    says that a sigmoid put the maps of the stage out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Size
    layer: Size
    kind: Literal[
        "channel", "spatial", "directional", "branch", "map", "self-attention", "cross-covariance", "features"
    ]
    module: Text
    call: Annotated[int, Field(ge=0)]
    map_shape: tuple[Size, ...] = Field(min_length=1, max_length=8)
    feature_size: tuple[Size, ...] | None = Field(default=None, max_length=4)
    made_in: Literal["float16", "bfloat16", "float32", "float64"] | None = None
    aligned: tuple[bool, ...] | None = Field(default=None, max_length=4096)
    sigmoid: bool = False

    @property
    def name(self) -> str:
        """The array's name."""
        return f"stage{self.stage}_layer{self.layer:02}"


@dataclass(frozen=True)
class Array:
    """One array of a store: what its metadata must be."""

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    fill: Any
    attributes: dict[str, Any]

    def create(self, group: zarr.Group) -> "zarr.Array[Any]":
        """Make the array."""
        return group.create_array(
            self.name,
            shape=self.shape,
            chunks=self.chunks,
            dtype=str if self.dtype == "string" else self.dtype,
            dimension_names=self.dims,
            fill_value=self.fill,
            compressors=[Crc32cCodec()],
            attributes=self.attributes,
        )

    def fits(self, metadata: Any) -> bool:
        """Whether an array's metadata, from a file, is this array's."""
        expected = {
            "node_type": "array",
            "zarr_format": 3,
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "dimension_names": list(self.dims),
            "codecs": self._codecs(),
        }
        known = expected.keys() | {"attributes", "fill_value", "storage_transformers"}
        metadata = {**metadata, "codecs": [{"configuration": {}, **codec} for codec in metadata["codecs"]]}
        same = all(metadata.get(key) == value for key, value in expected.items())
        return same and metadata.keys() <= known and not metadata.get("storage_transformers")

    def _codecs(self) -> list[dict[str, Any]]:
        checksum = {"name": "crc32c", "configuration": {}}
        if self.dtype == "string":
            return [{"name": "vlen-utf8", "configuration": {}}, checksum]
        order = {"endian": "little"} if np.dtype(self.dtype).itemsize > 1 else {}
        return [{"name": "bytes", "configuration": order}, checksum]

    def file(self, root: Path, chunk: int) -> Path:
        """The file of the chunk that holds these images."""
        return root.joinpath(self.name, "c", str(chunk), *("0",) * (len(self.shape) - 1))

    @property
    def chunk_bytes(self) -> int:
        """The size of each chunk's file."""
        return prod(self.chunks) * np.dtype(self.dtype).itemsize + CHECKSUM

    def is_whole(self, root: Path, chunk: int) -> bool:
        """Whether a chunk's file is there in its full size."""
        size = _file_size(self.file(root, chunk))
        return size == self.chunk_bytes


@dataclass(frozen=True)
class Layout:
    """A store's description: the whole and the layers, in forward order."""

    info: StoreInfo
    layers: tuple[Layer, ...]

    @property
    def chunks(self) -> int:
        """How many chunks the images are cut into."""
        return -(-self.info.images // self.info.batch)

    def rows(self, chunk: int) -> range:
        """The images of a chunk."""
        return range(chunk * self.info.batch, min((chunk + 1) * self.info.batch, self.info.images))

    def layer_arrays(self) -> list[Array]:
        """The arrays of the layers."""
        return [self._layer_array(layer) for layer in self.layers]

    def image_arrays(self) -> dict[str, Array]:
        """The arrays that say something of each image: names, labels, status."""
        whole, cut, dims = (self.info.images,), (self.info.batch,), ("image",)
        status = {
            "flag_values": [ABSENT, CAPTURED, UNREADABLE],
            "flag_meanings": "absent captured unreadable",
        }
        return {
            NAMES: Array(NAMES, whole, whole, "string", dims, "", {}),
            LABELS: Array(LABELS, whole, cut, "int64", dims, UNLABELLED, {}),
            STATUS: Array(STATUS, whole, cut, "uint8", dims, ABSENT, status),
        }

    def _layer_array(self, layer: Layer) -> Array:
        elements, info = prod(layer.map_shape), self.info
        return Array(
            layer.name,
            (info.images, elements),
            (info.batch, elements),
            info.dtype,
            ("image", f"stage{layer.stage}_{'channel' if layer.kind == 'channel' else 'element'}"),
            float("nan"),
            layer.model_dump(mode="json", exclude_none=True),
        )


def create(path: Path, layout: Layout, names: Sequence[str], labels: Sequence[int] | None) -> None:
    """Make an empty store; `path` is there when it is complete in itself, and replaces what was there.

    Only the process that holds `path` (`dia_analysis.results.output.hold`) may do so.
    """
    path = path.resolve()
    draft = draft_of(path)
    try:
        _create_at(draft, layout, names, labels)
        put_in_place(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _create_at(draft: Path, layout: Layout, names: Sequence[str], labels: Sequence[int] | None) -> None:
    attributes = {"coordinates": f"{LABELS} {STATUS}", **layout.info.model_dump(mode="json", round_trip=True)}
    group = zarr.create_group(
        draft, zarr_format=3, attributes={key: value for key, value in attributes.items() if value is not None}
    )
    images = {key: array.create(group) for key, array in layout.image_arrays().items()}
    images[NAMES][:] = np.array([name.encode(errors="backslashreplace").decode() for name in names], dtype=object)
    if labels is not None:
        images[LABELS][:] = np.array(labels, dtype=np.int64)
    for array in layout.layer_arrays():
        array.create(group)
    with warnings.catch_warnings():  # Zarr says that other programs need not know this part; xarray warns without it
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(draft)


def is_store(path: Path) -> bool:
    """Whether a path holds a capture store, perhaps a damaged one."""
    try:
        return bool(_document(path)["attributes"]["schema_name"] == "dia.capture/1")
    except (AnalysisInputError, KeyError, TypeError):
        return False


def read_layout(path: Path) -> Layout:
    """Read and check a store's metadata, and the size of the files about its images.

    Raises AnalysisInputError if the store is not there, not one of this toolkit's, or damaged.
    """
    if not path.exists():
        raise AnalysisInputError("capture", f"there is no capture store {path}; dia-analyze capture writes one")
    document = _document(path)
    try:
        attributes = {key: value for key, value in document["attributes"].items() if key != "coordinates"}
        info = StoreInfo.model_validate(attributes)
        metadata: dict[str, Any] = document["consolidated_metadata"]["metadata"]
        layers = [Layer.model_validate(one["attributes"]) for name, one in metadata.items() if name.startswith("stage")]
        layout = Layout(info, tuple(sorted(layers, key=lambda layer: (layer.stage, layer.layer))))
        _check_arrays(layout, metadata)
    except ValidationError as error:
        first = error.errors()[0]
        raise foreign(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise foreign(path, str(error)) from error
    _check_image_files(path, layout)
    return layout


def foreign(path: Path, reason: str) -> AnalysisInputError:
    """The error for a store that cannot be used."""
    return AnalysisInputError("capture", f"{path} is damaged or no capture store of dia-analyze: {reason}")


def _document(path: Path) -> Any:
    file = path / "zarr.json"
    size = _file_size(file)
    if size is None or size > LARGEST_METADATA:
        raise foreign(path, "it has no zarr.json" if size is None else "its zarr.json is larger than 16 MiB")
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise foreign(path, "its zarr.json cannot be read") from error


def _check_arrays(layout: Layout, metadata: dict[str, Any]) -> None:
    arrays = {array.name: array for array in (*layout.image_arrays().values(), *layout.layer_arrays())}
    if arrays.keys() != metadata.keys() or not layout.layers:
        raise ValueError("it has other arrays than the layers it names")
    for name, array in arrays.items():
        if not array.fits(metadata[name]):
            raise ValueError(f"the array {name} is not as a capture writes it")
        if array.dtype != "string" and array.chunk_bytes > LARGEST_CHUNK:
            raise ValueError(f"a chunk of {name} has more than 2 GiB")
    places = [(layer.stage, layer.layer) for layer in layout.layers]
    if places != list(_places(layout.layers)):
        raise ValueError("its layers are not numbered one after the other")
    alike = {(one.stage, one.kind, one.map_shape, one.feature_size, one.made_in) for one in layout.layers}
    if len(alike) != places[-1][0]:
        raise ValueError("the layers of a stage differ in their maps")
    said = {(one.stage, None if one.aligned is None else len(one.aligned)) for one in layout.layers}
    sizes = Counter(layer.stage for layer in layout.layers)
    if len(said) != len(sizes) or not {count for _, count in said if count} <= {sizes[stage] for stage, count in said}:
        raise ValueError("a layer is not said to be aligned, or not, with each of its stage")


def _places(layers: Sequence[Layer]) -> Iterator[tuple[int, int]]:
    """The places of as many layers if they are numbered from 1 without gaps."""
    stage, number = 0, 0
    for layer in layers:
        stage, number = (stage + 1, 1) if layer.stage != stage else (stage, number + 1)
        yield stage, number


def _check_image_files(path: Path, layout: Layout) -> None:
    arrays = layout.image_arrays()
    names = arrays[NAMES].file(path, 0)
    if _file_size(names) is None or _count(names) != layout.info.images:
        raise foreign(path, "the names of its images are cut off")
    for array in (arrays[LABELS], arrays[STATUS]):
        for chunk in range(layout.chunks):
            if _file_size(array.file(path, chunk)) is not None and not array.is_whole(path, chunk):
                raise foreign(path, f"{array.file(path, chunk).relative_to(path)} is cut off")


def _count(names: Path) -> int:
    """How many strings a file says it holds, which is how much would be reserved for them."""
    with names.open("rb") as file:
        start = file.read(4)
    return struct.unpack("<I", start)[0] if len(start) == 4 else -1


def _file_size(path: Path) -> int | None:
    """The size of a regular file; None if there is none, or something else, such as a link."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
