"""What the results of all analyses have in common: words, a picture, a folder, tables, and a short `repr`."""

import importlib
import json
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import dia_analysis
from dia_analysis import (
    AnalysisInputError,
    FoldingResult,
    GiniCollector,
    Result,
    Subject,
    TrustChecks,
    check_randomization,
    check_road,
    gradcam,
    measure_ablation,
    measure_agreement,
    measure_attention,
    measure_cost,
    measure_gradients,
    measure_regions,
)
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.correlation import CorrelationComparison
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.paper.untrained import Baseline, BesideUntrained
from dia_analysis.probes.stages import StageMaps
from dia_analysis.trust.checks import TrustReport
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_analysis.xray.diagnosis import assess
from dia_analysis.xray.findings import assess_findings
from dia_models import create_model, fold_attention
from tests.support.findings import finding_readings
from tests.support.gates import of_maps
from tests.support.readings import readings
from tests.support.sweep_results import BETTER, WORSE
from tests.support.sweep_results import result as sweep


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model, images = create_model("cifar_resnet20_se"), torch.randn(6, 3, 16, 16)
    correlation = of_maps(torch.rand(6, 4, 8), 3)
    collectors = [GiniCollector(rows=rows) for rows in ("centred", "vector")]
    layers = tuple((f"l{i}.gate", 0) for i in range(4))
    for collector in collectors:
        collector.add([StageMaps("channel", layers, torch.rand(24, 4, 8))])
    importance = GiniReadings({collector.rows: collector.result() for collector in collectors}, None)
    gradients = measure_gradients(model, [(images, torch.arange(6))])
    maps = gradcam(model, images)
    check = TrustChecks("net", check_randomization(model, images, steps=2), check_road(model, images, steps=3))
    report = TrustReport(6, (check,), (measure_agreement([maps, replace(maps, name="other")]),))
    every = (
        correlation,
        BesideUntrained(correlation, Baseline(correlation, "random", None, True)),
        CorrelationComparison({"net": BesideUntrained(correlation, Baseline(correlation, "random", None, True))}),
        importance.first,
        importance,
        ImportanceComparison({"a": importance, "b": importance}),
        gradients,
        BesidePlain(gradients),
        maps,
        HeatmapComparison((maps,), (None,) * 6, report),
        measure_cost({"net": Subject(model, images, "net")}, rounds=6),
        check.randomization,
        check.road,
        check,
        report,
        report.agreements[0],
        assess(readings(), resamples=5),
        assess_findings(finding_readings(), resamples=5),
        sweep(SE=BETTER, plain=WORSE),
        measure_regions(model, [images]),
        measure_attention(model, images),
        FoldingResult.of(fold_attention(model, [(images, torch.arange(6))], layers=["1"]), "net"),
        measure_ablation(model, (images, torch.arange(6)), images + 0.1, replace_by=["mean"], layers=["all"]),
    )
    return {type(result).__name__: result for result in every}


NAMES = (
    *("CorrelationResult", "BesideUntrained", "GiniResult", "GiniReadings", "ImportanceComparison", "GradientResult"),
    *("BesidePlain", "GradCAMResult", "HeatmapComparison", "CostResult", "RandomizationResult", "RoadResult"),
    *("TrustChecks", "TrustReport", "AgreementResult", "TwoClassResult", "SweepResult", "RegionsResult"),
    *("AttentionResult", "AblationResult", "CorrelationComparison", "FoldingResult", "FindingsResult"),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_result_has_a_folder_a_picture_and_a_short_repr(found, name, tmp_path):
    result = found[name]
    folder = result.save(tmp_path / "out", image_names=["x", "y"])
    arrays = result.datasets()
    pictures = {f"{result.file}.{kind}" for kind in ("png", "pdf")}
    files = {path.name for path in folder.iterdir()}
    more = ("index.html", "arrays", "pictures") if name == "AttentionResult" else ()
    numbers = {f"{result.file}.json", *(f"{n}.nc" for n in arrays)}
    assert files == {"images.txt", "manifest.json", *pictures, *numbers, *more}
    labelled = result.to_xarray()
    assert labelled.sizes if isinstance(labelled, xr.Dataset) else len(labelled.children) == len(arrays)
    assert json.loads((folder / f"{result.file}.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    for stem, expected in arrays.items():
        with xr.open_dataset(folder / f"{stem}.nc") as written:
            for variable in expected.data_vars:
                np.testing.assert_array_equal(
                    written[variable].values.astype(str), expected[variable].values.astype(str)
                )
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        result.save(folder)
    assert len(result.summary()) > 20
    assert len(repr(result)) < 800
    assert "<img" in result._repr_html_()
    assert result.figure().axes[0].has_data()


def test_figures_that_are_given_take_the_place_of_the_picture(found, tmp_path):
    folder = found["CostResult"].save(tmp_path / "out", figures={"more": Figure()})
    assert {path.stem for path in folder.glob("*.p*")} == {"more"}


def test_every_result_is_among_these():
    for module in pkgutil.walk_packages(dia_analysis.__path__, "dia_analysis."):
        importlib.import_module(module.name)
    assert {k.__name__ for k in Result.__subclasses__() if k.__module__.startswith("dia_analysis")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_long_form_has_a_row_for_every_number(found, name):
    frame = found[name].to_dataframe()
    assert len(frame) > 0
    assert not frame.columns.duplicated().any()
    assert list(frame.index) == list(range(len(frame)))


def test_long_form_has_the_numbers_of_the_arrays(found):
    stage, frame = found["CorrelationResult"].stages[0], found["CorrelationResult"].to_dataframe()
    wide = frame[frame["stage"] == 1].pivot(index="layer", columns="other", values="r")
    names = [f"{module}#{call}" for module, call in stage.layers]
    np.testing.assert_array_equal(wide.loc[names, names].to_numpy(), stage.matrix)
    untrained = found["BesideUntrained"].to_dataframe()
    assert untrained["network"].unique().tolist() == ["trained", "before training"]
    assert untrained["r"].tolist() == [*frame["r"], *frame["r"]]
    maps, frame = found["GradCAMResult"], found["GradCAMResult"].to_dataframe()
    np.testing.assert_array_equal(frame["score"], maps.score)
    np.testing.assert_array_equal(frame["cam_max"], maps.cam_max)
    cost, frame = found["CostResult"], found["CostResult"].to_dataframe()
    np.testing.assert_array_equal(frame["seconds"], cost.networks[0].seconds)
    check, frame = found["RandomizationResult"], found["RandomizationResult"].to_dataframe()
    np.testing.assert_array_equal(frame["ssim"], check.ssim.reshape(-1))
