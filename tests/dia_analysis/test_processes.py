"""As with torchrun: two processes give what one gives, with uneven shares, and only the first one speaks and writes."""

import json
from itertools import chain

import pytest
import torch
import xarray as xr

import cli.analyze
import cli.common.main
from dia_analysis import CaptureStore, measure_correlation
from dia_analysis import distributed as processes
from tests.support import forked
from tests.support.gates import Gates

SE = "digits-resnet56-se"
IMAGES, BATCH = 101, 16  # seven batches, the last of five: four to one process, three to the other

WORKER = """
import json, pathlib, sys, torch
import cli.analyze, cli.analyses.correlation, cli.common.main
from dia_analysis import AnalysisInputError, ImageList, measure_correlation, distributed as processes, write_store
from tests.support.gates import Gates

cli.analyses.correlation.draw = lambda *_: {}  # takes long, and other tests look at it

def analyze(*arguments):
    code = cli.common.main.run(cli.analyze.app, list(arguments))
    assert code == 0, code

def results(batch, maps):
    mine = processes.share(range(len(maps)), batch)
    parts = [maps[mine[i : i + batch]] for i in range(0, len(mine), batch)]
    return measure_correlation(Gates(3), parts)

out, maps = sys.argv[1], torch.load(sys.argv[1] + "/maps.pt")
with processes.process_group():
    rank = processes.rank()
    for count in (7, 3, 1):
        result = results(1, maps[:count])
        document = {"result": result.to_dict(), "examples": result.stages[0].examples.tolist()}
        pathlib.Path(f"{out}/library-{count}-{rank}.json").write_text(json.dumps(document))
    try:
        results(1, maps[:0])
    except AnalysisInputError as error:
        print(f"rank {rank}: {error}", file=sys.stderr)
    try:
        measure_correlation(Gates(2 + rank), [maps])
    except AnalysisInputError as error:
        print(f"rank {rank}: {error}", file=sys.stderr)
    one = ImageList(("a",))
    write_store(f"{out}/one.zarr", Gates(3), lambda rows: [(maps[rows], rows)], one, batch=8)
    for resume in (False, True):
        analyze("capture", *sys.argv[2:], "--out", f"{out}/two.zarr", *(["--resume"] if resume else []))
    analyze("correlation", *sys.argv[2:], "--out", f"{out}/two", "--json")
    analyze("correlation", "--capture", f"{out}/two.zarr", "-b", "16", "--out", f"{out}/stored")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Everything that two processes do, in one start of them, and what one process does."""
    out = tmp_path_factory.mktemp("processes")
    maps = torch.randn(7, 3, 9, generator=torch.Generator().manual_seed(3))
    torch.save(maps, out / "maps.pt")
    options = ["--ckpt", SE, "--images", str(IMAGES), "-b", str(BATCH)]
    two = forked.run_two(WORKER, out, *options, folder=out)
    said, noted = (
        "".join(file.read_text() for file in files) for files in zip(*((p.out, p.err) for p in two), strict=True)
    )
    assert [process.code for process in two] == [0, 0], noted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.analyses.correlation.draw", lambda *_: {})
        assert cli.common.main.run(cli.analyze.app, ["capture", *options, "--out", str(out / "whole.zarr")]) == 0
        assert (
            cli.common.main.run(cli.analyze.app, ["correlation", *options, "--out", str(out / "whole"), "--json"]) == 0
        )
    return out, maps, said, noted


def numbers(stages):
    """The statistics of stages that do not depend on the order of adding up, and those that do."""
    exact = [[s[k] for k in ("median_r", "share_above_0_8", "pairs", "undefined", "layers", "points")] for s in stages]
    return exact, [[s["mean_r"], s["std_r"], *chain.from_iterable(s["matrix"])] for s in stages]


def assert_same(first, second):
    (exact, sums), (other_exact, other_sums) = numbers(first["stages"]), numbers(second["stages"])
    assert exact == other_exact
    for a, b in zip(sums, other_sums, strict=True):
        assert a == pytest.approx(b, abs=1e-12)
    assert first["images"] == second["images"]


def test_the_command_gives_what_one_process_gives(run):
    out, *_ = run
    one, two, stored = (json.loads((out / n / "correlation.json").read_text()) for n in ("whole", "two", "stored"))
    assert one["images"] == IMAGES
    assert one["stages"][0]["pairs"] == IMAGES * 15
    assert_same(one, two)
    assert_same(one, stored)
    for baseline in ("untrained", "untrained_reestimated"):
        assert_same(one[baseline] | {"images": 0}, two[baseline] | {"images": 0})
    assert one["training"] == two["training"]
    for folder in ("two", "stored"):
        assert (out / "whole" / "images.txt").read_text() == (out / folder / "images.txt").read_text()
        for stage in (1, 2, 3):
            with (
                xr.open_dataset(out / "whole" / f"stage{stage}.nc") as a,
                xr.open_dataset(out / folder / f"stage{stage}.nc") as b,
            ):
                assert (a["examples"] == b["examples"]).all()
                assert (a["histogram"] == b["histogram"]).all()


def test_only_the_first_process_speaks_and_writes(run):
    out, _, found, noted = run
    assert found.count("the attention maps of its layers") == 2  # captured, and nothing left to capture
    assert found.count('"schema": "dia.correlation/2"') == 1
    assert found.count("Mean r is") == 1
    for name in ("two.zarr", "two", "stored"):
        assert noted.count(f"written to {out / name}/") == (2 if name == "two.zarr" else 1)
    assert "Warning" not in noted


def test_a_store_written_by_two_is_that_written_by_one(run):
    out, *_ = run
    one, two = (
        {p.relative_to(out / name).as_posix(): p.read_bytes() for p in (out / name).rglob("*") if p.is_file()}
        for name in ("whole.zarr", "two.zarr")
    )
    assert one == two


@pytest.mark.parametrize("count", [7, 3, 1])
def test_uneven_shares_and_fewer_images_than_processes(run, count):
    out, maps, *_ = run
    alone = measure_correlation(Gates(3), maps[:count].split(1))
    for rank in (0, 1):
        document = json.loads((out / f"library-{count}-{rank}.json").read_text())
        assert_same(alone.to_dict(), document["result"])
        assert document["examples"] == alone.stages[0].examples.tolist()


def test_a_store_of_one_image_by_two_processes(run):
    out, maps, *_ = run
    (stage,) = CaptureStore.open(out / "one.zarr").stages(slice(0, 1))
    assert torch.equal(stage.maps, maps[:1])


def test_errors_reach_every_process(run):
    noted = run[-1]
    for rank in (0, 1):
        assert f"rank {rank}: there are no images to analyze" in noted
        assert f"rank {rank}: the network ran other layers in one process than in another" in noted


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with processes.process_group():
        assert (processes.rank(), processes.world_size()) == (0, 1)
        assert processes.all_gather("a") == ["a"]
        assert processes.share(range(5), 2) == [0, 1, 2, 3, 4]
        processes.barrier()


def test_shares_are_whole_batches_and_nothing_is_doubled_or_lost(monkeypatch):
    monkeypatch.setattr(processes, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(processes.share(range(11), 2))
    assert shares == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10]]
