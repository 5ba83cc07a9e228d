"""Capture stores: read by plain xarray, equal to the network, resumed after a kill, and safe to open."""

import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from dia_analysis import (
    AnalysisInputError,
    CaptureStore,
    ImageList,
    Provenance,
    capture,
    measure_correlation,
    write_store,
)
from dia_analysis.store import writer as store_writer
from dia_analysis.store.reader import stream_store
from dia_models import create_model
from tests.support import forked
from tests.support.gates import Gates

pytestmark = pytest.mark.numeric

COUNT, BATCH = 21, 4  # the last of six chunks holds one image


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return create_model("cifar_resnet20_dia_lstm").eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def batches(images, broken=()):
    """Give images as asked for, batch by batch, without those that cannot be read."""

    def give(rows):
        for start in range(0, len(rows), BATCH):
            kept = [row for row in rows[start : start + BATCH] if row not in broken]
            if kept:
                yield images[kept], kept

    return give


def all_names():
    return [f"é/{i}.png" for i in range(COUNT)]


def write(path, model, images, broken=(), names=None, **options):
    listed = ImageList(tuple(names or all_names()[: len(images)]), tuple(range(len(images))), ("a", "b"))
    return write_store(path, model, batches(images, broken), listed, **{"batch": BATCH, **options})


@pytest.fixture(scope="module")
def store(tmp_path_factory, model, images):
    return write(tmp_path_factory.mktemp("store") / "maps.zarr", model, images)


def content(path):
    """Every file's bytes."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def plain_maps(model, images):
    with capture(model) as records, torch.no_grad():
        model(images)
    return {key: value.flatten(1) for key, value in records.items()}


def test_plain_xarray_reads_what_a_plain_loop_captures(store, model, images):
    parts = [plain_maps(model, part) for part in images.split(BATCH)]
    with xr.open_zarr(store.path) as found:
        assert list(found["image"].values) == all_names()
        assert list(found["label"].values) == list(range(COUNT))
        assert set(found.coords) == {"image", "label", "status"}
        layers = {(a.attrs["module"], a.attrs["call"]): a for a in found.data_vars.values()}
        assert layers.keys() == parts[0].keys()
        for key, array in layers.items():
            np.testing.assert_array_equal(array.values, torch.cat([part[key] for part in parts]).numpy())
        assert found["stage2_layer01"].dims == ("image", "stage2_channel")
        assert found["stage2_layer01"].encoding["chunks"] == (BATCH, 128)
        attributes = found["stage3_layer02"].attrs
        assert (attributes["module"], attributes["call"]) == ("stages.2.attention.gate", 1)
        assert (attributes["feature_size"], attributes["map_shape"], attributes["kind"]) == ([2, 2], [256], "channel")
        assert found.sel(image="é/7.png")["stage1_layer01"].shape == (64,)


def test_provenance_labels_and_names_come_back(tmp_path, model, images):
    given = Provenance("net", "ab" * 32, "digits", "all", 3)
    store = write(tmp_path / "s.zarr", model, images[:3], provenance=given, points="*cell_state", dtype="float16")
    assert store.provenance == given
    assert (store.labels, store.names[2], store.captured) == ((0, 1, 2), "é/2.png", 3)
    info = store.layout.info
    assert (info.points, info.dtype, info.classes) == (("*cell_state",), "float16", ("a", "b"))
    document = store.to_dict()
    json.dumps(document, allow_nan=False)
    assert (document["schema"], document["images"], len(document["layers"])) == ("dia.capture/1", 3, 6)
    assert "1  channel              2  64" in store.summary()


@pytest.mark.parametrize("batch", [None, 5, COUNT])
def test_correlation_from_a_store_equals_that_from_the_network(store, model, images, batch):
    direct, stored = (
        measure_correlation(model, images.split(batch or BATCH)),
        measure_correlation(store.path, batch_size=batch),
    )
    assert stored.num_images == COUNT
    for a, b in zip(direct.stages, stored.stages, strict=True):
        np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-6)
        assert (a.histogram.sum(), a.undefined) == (b.histogram.sum(), b.undefined)
        if batch is None:  # the same batches: equal to the last bit
            assert a.to_dict() == b.to_dict()
            np.testing.assert_array_equal(a.examples, b.examples)


@pytest.mark.parametrize(
    ("made", "kept"), [(torch.float32, "float16"), (torch.bfloat16, "float32"), (torch.float16, "float32")]
)
def test_a_map_of_rounding_alone_is_constant_in_any_store(made, kept, tmp_path):
    """0.5 and 0.5 ± 1 rounding of the type in which the maps were made, which the store says."""
    signs = torch.where(torch.rand(4, 2, 32) < 0.5, -1.0, 1.0)
    maps = torch.cat([0.5 + signs * torch.finfo(made).eps / 2, torch.rand(4, 2, 32)], 1).to(made)
    direct = measure_correlation(Gates(4), maps.split(BATCH))
    stored = measure_correlation(write(tmp_path / "s.zarr", Gates(4), maps, dtype=kept))
    for result in (direct, stored):
        assert result.stages[0].constant.tolist() == [4, 4, 0, 0]
        assert result.stages[0].undefined == 4 * 5


def test_float16_moves_r_by_little(tmp_path, model, images, store):
    exact = measure_correlation(store)
    rounded = measure_correlation(write(tmp_path / "s.zarr", model, images, dtype="float16"))
    for a, b in zip(exact.stages, rounded.stages, strict=True):
        np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-3)
        assert not np.array_equal(a.matrix, b.matrix)
    assert rounded.mean_r == pytest.approx(exact.mean_r, abs=1e-3)


def test_float16_refuses_maps_that_it_cannot_hold_and_keeps_infinite_ones(tmp_path):
    maps = torch.randn(3, 2, 5)
    maps[1, 1, 2] = torch.inf
    store = write(tmp_path / "a.zarr", Gates(2), maps, dtype="float16")
    (stage,) = store.stages(slice(0, 3))
    torch.testing.assert_close(stage.maps, maps.half(), rtol=0, atol=0)
    maps[2, 0, 0] = 1e5
    with pytest.raises(AnalysisInputError, match=r"layers.0.gate go beyond float16's 65,504; give dtype float32"):
        write(tmp_path / "b.zarr", Gates(2), maps, dtype="float16")


def test_maps_that_are_nan_all_over_are_kept(tmp_path):
    store = write(tmp_path / "a.zarr", Gates(2), torch.full((6, 2, 5), torch.nan))
    assert store.captured == 6
    assert measure_correlation(store).stages[0].undefined == 6


def test_spatial_maps_keep_their_shape(tmp_path, images):
    model = create_model("cifar_resnet20_cbam").eval()
    store = write(tmp_path / "a.zarr", model, images[:5])
    spatial = [layer for layer in store.layout.layers if layer.kind == "spatial"]
    assert spatial[0].map_shape == (1, 8, 8)
    assert [stage.to_dict() for stage in measure_correlation(store).stages] == [
        stage.to_dict() for stage in measure_correlation(model, images[:5].split(BATCH)).stages
    ]


def test_unreadable_images_are_said_and_left_out(tmp_path, model, images):
    broken = {1, 6, 8, 9, 10, 11, 20}  # some of a chunk, a whole chunk, and the last
    store = write(tmp_path / "s.zarr", model, images, broken)
    assert store.captured == COUNT - len(broken)
    assert store.unreadable == tuple(f"é/{i}.png" for i in sorted(broken))
    with xr.open_zarr(store.path) as found:
        assert found["status"].values.tolist() == [2 if i in broken else 1 for i in range(COUNT)]
        layer = found["stage1_layer01"].values
        assert np.isnan(layer).all(1).nonzero()[0].tolist() == sorted(broken)
    direct = measure_correlation(model, [pixels for pixels, _ in batches(images, broken)(list(range(COUNT)))])
    assert measure_correlation(store).to_dict()["stages"] == direct.to_dict()["stages"]


def test_a_batch_of_unreadable_images_is_not_given_on(tmp_path, model, images):
    store = write(tmp_path / "s.zarr", model, images, broken=range(BATCH))
    sizes = []
    assert stream_store(store, lambda stages: sizes.append(len(stages[0].maps))) == COUNT - BATCH
    assert sizes == [4, 4, 4, 4, 1]


BROKEN = {1, 8, 9, 10, 11}  # the third chunk has no image that can be read, and is marked so at the end


@pytest.mark.parametrize(
    ("broken", "writes", "left"),
    [((), 0, [0, 1, 2, 3, 4, 5]), ((), 3, [0, 1, 2, 3, 4, 5]), ((), 20, [2, 3, 4, 5]), (BROKEN, 29, [2, 5])],
)
def test_a_capture_that_breaks_off_goes_on_to_the_same_content(
    tmp_path, store, model, images, broken, writes, left, monkeypatch
):
    whole = write(tmp_path / "whole.zarr", model, images, broken) if broken else store
    original, asked, remaining = store_writer._Writer._array, [], [writes]

    def failing(self, *arguments):
        if remaining[0] == 0:
            raise KeyboardInterrupt
        remaining[0] -= 1
        original(self, *arguments)

    path = tmp_path / "part.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(store_writer._Writer, "_array", failing)
        with pytest.raises(KeyboardInterrupt):
            write(path, model, images, broken)
    with pytest.raises(AnalysisInputError, match=r"is not finished: \d+ of 21 images are missing; .*resume"):
        CaptureStore.open(path)

    def give(rows):
        asked.extend(rows)
        return batches(images, broken)(rows)

    listed = ImageList(tuple(all_names()), tuple(range(COUNT)), ("a", "b"))
    write_store(path, model, give, listed, batch=BATCH, resume=True)
    assert content(path) == content(whole.path)
    assert sorted({row // BATCH for row in asked}) == left, "only the chunks that are not whole are captured again"


KILLED = """
import os, signal, sys
import cli.analyze, cli.common.main
from dia_analysis.store import writer as store_writer

original, left = store_writer._Writer._array, [45]

def dying(self, *arguments):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    original(self, *arguments)

store_writer._Writer._array = dying
sys.exit(cli.common.main.run(cli.analyze.app, sys.argv[1:]))
"""


def test_a_killed_command_goes_on_with_resume(tmp_path, capsys):
    import cli.analyze
    import cli.common.main

    command = ("capture", "--ckpt", "digits-resnet56-se", "--images", "50", "-b", "16")
    part, whole = tmp_path / "part.zarr", tmp_path / "whole.zarr"
    killed = forked.run(KILLED, *command, "--out", part, folder=tmp_path)
    assert killed.code == -signal.SIGKILL, killed.err.read_text()
    with pytest.raises(AnalysisInputError, match="18 of 50 images are missing"):
        CaptureStore.open(part)
    (part / "stage1_layer01" / "c" / "2" / "0.1234.partial").write_bytes(b"half")
    assert cli.common.main.run(cli.analyze.app, [*command, "--out", str(part), "--resume"]) == 0
    assert (
        cli.common.main.run(cli.analyze.app, [*command, "--out", str(whole), "--resume"]) == 0
    )  # nothing there: begins
    assert content(part) == content(whole)
    assert cli.common.main.run(cli.analyze.app, [*command, "--out", str(part), "--resume"]) == 0  # nothing left to do
    assert content(part) == content(whole)
    assert "50 images, float32" in capsys.readouterr().out


def test_a_chunk_that_lost_its_bytes_is_captured_again(tmp_path, model, images, store):
    path = tmp_path / "s.zarr"
    shutil.copytree(store.path, path)
    (path / "stage2_layer01" / "c" / "3" / "0").write_bytes(b"")
    with pytest.raises(AnalysisInputError, match=r"stage2_layer01/c/3/0 is missing or cut off"):
        CaptureStore.open(path)
    write(path, model, images, resume=True)
    assert content(path) == content(store.path)


@pytest.mark.parametrize(
    ("changes", "argument", "said"),
    [
        ({"names": [f"{i}" for i in range(COUNT)]}, "data", "images_sha256"),
        ({"images": 20}, "images", "images 21, not 20"),
        ({"batch": 5}, "batch-size", "batch 4, not 5"),
        ({"dtype": "float16"}, "dtype", "dtype float32, not float16"),
        ({"points": "*cell_state"}, "points", "points None, not"),
        ({"provenance": Provenance(data="other")}, "data", "data None, not other"),
        ({"provenance": Provenance(checkpoint_sha256="cd")}, "ckpt", "checkpoint_sha256 None, not cd"),
        ({"provenance": Provenance(seed=1)}, "seed", "seed None, not 1"),
        ({"model": "cifar_resnet20_se"}, "ckpt", "weights_sha256"),
    ],
)
def test_going_on_with_something_else_is_refused(store, model, images, changes, argument, said):
    before = content(store.path)
    model = create_model(changes.pop("model")) if "model" in changes else model
    images = images[: changes.pop("images", COUNT)]
    with pytest.raises(AnalysisInputError, match=f"was begun with .*{said}.*only the same can be resumed") as e:
        write(store.path, model, images, resume=True, **changes)
    assert e.value.argument == argument
    assert content(store.path) == before


def test_a_store_is_replaced_only_when_asked_and_other_things_never(tmp_path, model, images):
    path = tmp_path / "s.zarr"
    path.mkdir()
    write(path, model, images[:2])  # an empty folder is no store
    with pytest.raises(AnalysisInputError, match="exists; resume it, overwrite it, or choose another path"):
        write(path, model, images[:3])
    assert write(path, model, images[:3], overwrite=True).captured == 3
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("all of it")
    with pytest.raises(AnalysisInputError, match="is no capture store, so it is not overwritten"):
        write(other, model, images, overwrite=True)
    with pytest.raises(AnalysisInputError, match="damaged or no capture store"):
        write(other, model, images, resume=True)
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "s.zarr"]


@pytest.mark.parametrize("rows", [[[1, 0]], [[0, 1, 2, 3, 4]], [[0, 0]], [[0, 1], [2, 3]], [[40]]])
def test_batches_other_than_those_asked_for_are_refused(tmp_path, model, images, rows):
    def give(_):
        return [(images[[r % COUNT for r in part]], part) for part in rows]

    names = ImageList(tuple(map(str, range(COUNT))))
    with pytest.raises(AnalysisInputError, match="give those asked for, in order, each batch from one run of 4"):
        write_store(tmp_path / "s.zarr", model, give, names, batch=BATCH)


def test_a_batch_whose_positions_are_not_as_many_as_its_images_is_refused(tmp_path, model, images):
    names = ImageList(tuple(map(str, range(COUNT))))
    with pytest.raises(AnalysisInputError, match="a batch of 4 images is said to hold 3"):
        write_store(tmp_path / "s.zarr", model, lambda _: [(images[:4], [0, 1, 2])], names, batch=BATCH)


def test_few_images_take_no_room_for_a_whole_batch(tmp_path, model, images):
    store = write(tmp_path / "s.zarr", model, images[:3], batch=128)
    assert (
        store.bytes == sum(p.stat().st_size for p in store.path.glob("stage*/c/*/0")) == 2 * (64 + 128 + 256) * 12 + 24
    )


def test_no_images_at_all_leave_no_store(tmp_path, model, images):
    with pytest.raises(AnalysisInputError, match="there are no images to capture"):
        write(tmp_path / "a.zarr", model, images[:0])
    with pytest.raises(AnalysisInputError, match="none can be read"):
        write(tmp_path / "a.zarr", model, images, broken=range(COUNT))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "argument", "said"),
    [
        ({"batch": 0}, "batch-size", "batch 0: Input should be greater than or equal to 1"),
        ({"provenance": Provenance(data="a\nb")}, "data", r"data 'a\\nb': Value error, it holds control characters"),
    ],
)
def test_what_a_store_cannot_say_is_refused(tmp_path, model, images, options, argument, said):
    with pytest.raises(AnalysisInputError, match=said) as caught:
        write(tmp_path / "a.zarr", model, images, **options)
    assert caught.value.argument == argument


def test_the_network_is_left_as_it_was(tmp_path, images):
    model = create_model("cifar_resnet20_se")
    modes = [m.training for m in model.modules()]
    write(tmp_path / "a.zarr", model, images)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def edit(change):
    def damage(path):
        file = path / "zarr.json"
        document = json.loads(file.read_text())
        change(document, document["attributes"], document["consolidated_metadata"]["metadata"])
        file.write_text(json.dumps(document))

    return damage


def cut(name, size):
    return lambda path: os.truncate(path / name, size)


def flip(path):
    file = path / "stage1_layer01" / "c" / "0" / "0"
    raw = bytearray(file.read_bytes())
    raw[10] ^= 1
    file.write_bytes(raw)


def link(path):
    file = path / "stage1_layer01" / "c" / "0" / "0"
    target = path.parent / "elsewhere"
    file.rename(target)
    file.symlink_to(target)


def many_names(path):
    file = path / "image" / "c" / "0"
    file.write_bytes(b"\xff\xff\xff\xff" + file.read_bytes()[4:])


def nested(path):
    (path / "zarr.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "there is no capture store"),
        (lambda path: (path / "zarr.json").unlink(), "has no zarr.json"),
        (cut("zarr.json", 100), "zarr.json cannot be read"),
        (nested, "zarr.json cannot be read"),
        (cut("zarr.json", 2**30), "larger than 16 MiB"),
        (cut("stage3_layer02/c/5/0", 7), "stage3_layer02/c/5/0 is missing or cut off"),
        (cut("stage3_layer02/c/5/0", 2**40), "stage3_layer02/c/5/0 is missing or cut off"),
        (cut("status/c/0", 3), "status/c/0 is cut off"),
        (cut("image/c/0", 3), "the names of its images are cut off"),
        (cut("image/c/0", 60), "image cannot be read"),
        (many_names, "the names of its images are cut off"),
        (link, "stage1_layer01/c/0/0 is missing or cut off"),
        (lambda path: shutil.rmtree(path / "status" / "c"), "is not finished: 21 of 21 images are missing"),
        (edit(lambda d, a, m: a.update(images=10**9)), "images: Input should be less than or equal to 10000000"),
        (edit(lambda d, a, m: a.update(images=COUNT + 1)), "the array image is not as a capture writes it"),
        (edit(lambda d, a, m: a.update(batch=2)), "the array label is not as a capture writes it"),
        (edit(lambda d, a, m: a.update(schema_name="mine/1")), "schema_name: Input should be 'dia.capture/1'"),
        (edit(lambda d, a, m: a.update(surprise=1)), "surprise: Extra inputs are not permitted"),
        (edit(lambda d, a, m: a.update(checkpoint="\x1b[2J")), "checkpoint: Value error, it holds control characters"),
        (edit(lambda d, a, m: m.pop("stage1_layer01")), "not numbered one after the other"),
        (edit(lambda d, a, m: m.update(x=m["label"])), "it has other arrays than the layers it names"),
        (edit(lambda d, a, m: d.pop("consolidated_metadata")), "consolidated_metadata"),
        (edit(lambda d, a, m: m["stage1_layer01"].update(shape=[COUNT, 2**40])), "stage1_layer01 is not as a capture"),
        (edit(lambda d, a, m: m["stage1_layer01"]["attributes"].update(map_shape=[2**31, 2**31])), "stage1_layer01 is"),
        (edit(lambda d, a, m: m["stage1_layer01"]["attributes"].update(map_shape=[8, 8])), "differ in their maps"),
        (edit(lambda d, a, m: m["stage1_layer01"]["attributes"].update(stage=2)), "damaged or no capture store"),
        (edit(lambda d, a, m: m["stage1_layer01"]["attributes"].update(module="a\nb")), "control characters"),
        (edit(lambda d, a, m: m["stage1_layer01"]["attributes"].update(aligned=[True])), "to be aligned, or not"),
        (edit(lambda d, a, m: m["stage1_layer01"].update(codecs=[{"name": "gzip"}])), "stage1_layer01 is not as"),
        (edit(lambda d, a, m: m["stage1_layer01"].update(codecs=7)), "damaged or no capture store"),
        (edit(lambda d, a, m: m["image"]["codecs"].insert(0, {"name": "numcodecs.pickle"})), "image is not as a"),
        (edit(lambda d, a, m: m["label"].update(storage_transformers=[{"name": "x"}])), "label is not as a capture"),
    ],
)
def test_a_damaged_or_foreign_store_is_refused_in_one_line(tmp_path, store, damage, said):
    path = tmp_path / "s.zarr"
    shutil.copytree(store.path, path)
    damage(path)
    with pytest.raises(AnalysisInputError) as caught:
        CaptureStore.open(path).names  # noqa: B018  # names are read when they are asked for
    assert said in str(caught.value)
    assert caught.value.argument == "capture"


def test_a_flipped_bit_is_noticed_when_the_maps_are_read(tmp_path, store):
    path = tmp_path / "s.zarr"
    shutil.copytree(store.path, path)
    flip(path)
    with pytest.raises(AnalysisInputError, match="stage1_layer01 cannot be read"):
        measure_correlation(path)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_store_that_would_execute_something_is_refused_before_it_is_decoded(tmp_path, store, monkeypatch):
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    trap, path = tmp_path / "ran", tmp_path / "s.zarr"
    bomb = pickle.dumps(Bomb(trap))
    numcodecs.Pickle().decode(bomb)
    assert trap.exists(), "what follows would be no trap"
    trap.unlink()
    shutil.copytree(store.path, path)
    (path / "image" / "c" / "0").write_bytes(bomb)
    old = {"zarr_format": 2, "shape": [COUNT], "chunks": [COUNT], "dtype": "|O", "compressor": None, "fill_value": 0}
    edit(lambda d, a, m: m.update(image={**old, "order": "C", "filters": [{"id": "pickle"}]}))(path)
    with pytest.raises(AnalysisInputError, match="damaged or no capture store"):
        CaptureStore.open(path)
    assert not trap.exists()


def test_another_programs_zarr_is_refused(tmp_path):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=3)
    group.create_array("x", data=np.arange(3.0), dimension_names=["image"])
    with pytest.raises(AnalysisInputError, match="damaged or no capture store of dia-analyze: images: Field required"):
        measure_correlation(tmp_path / "x.zarr")


def test_batches_that_would_not_fit_are_refused(store, monkeypatch):
    monkeypatch.setattr("dia_analysis.store.reader.LARGEST_READ", 1000)
    with pytest.raises(AnalysisInputError, match="the maps of 21 images take .* GiB; give fewer") as caught:
        stream_store(store, lambda _: None, batch_size=100)
    assert caught.value.argument == "batch-size"


def test_maps_too_large_to_be_written_at_once_are_refused(tmp_path, model, images, monkeypatch):
    monkeypatch.setattr("dia_analysis.store.writer.LARGEST_CHUNK", 3000)
    with pytest.raises(AnalysisInputError, match="give at most 2") as caught:
        write(tmp_path / "s.zarr", model, images)
    assert caught.value.argument == "batch-size"
    assert not list(tmp_path.iterdir())


def test_a_store_shows_itself_in_a_notebook(store):
    assert all(line.startswith("    ") for line in store._repr_markdown_().splitlines())
