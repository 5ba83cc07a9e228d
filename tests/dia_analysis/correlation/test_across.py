"""Between networks, and over the seeds of one."""

import numpy as np
import pytest
import torch
from scipy.stats import t

from dia_analysis import AnalysisInputError
from dia_analysis.correlation.across import measure_across
from dia_analysis.correlation.seeds import over_seeds
from dia_analysis.paper.correlation import CorrelationComparison
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.statistics.cka import cka
from tests.support.gates import Gates, of_maps

pytestmark = pytest.mark.numeric


def across(first, second, batch=7):
    sources = ("a", Gates(first.shape[1])), ("b", Gates(second.shape[1]))
    return measure_across(*sources, (first.split(batch), second.split(batch)))


def test_it_is_the_cka_of_the_layers_whose_widths_may_differ():
    driven = torch.randn(20, 1, 4)
    first = torch.cat([driven.expand(-1, 2, -1), torch.randn(20, 2, 4)], 2)
    second = torch.cat([driven.expand(-1, 3, -1), torch.randn(20, 3, 2)], 2)
    found = across(first, second)
    assert found.matrix.shape == (2, 3)
    expected = cka([*first.unbind(1), *second.unbind(1)])[:2, 2:]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)
    assert (found.matrix > 2 * found.null.high).all()
    document = found.to_dict()
    assert (document["a"], document["b"], document["similarity"]) == ("a", "b", "cka")
    assert np.shape(document["matrix"]) == (2, 3)
    assert "layers.0.gate: most like layers." in found.summary()


def test_other_images_have_no_likeness_beyond_chance():
    maps = torch.randn(40, 2, 5)
    found = across(maps, maps[torch.randperm(40)])
    assert np.abs(found.matrix).max() < 3 * found.null.high


def test_maps_that_do_not_vary_are_undefined_and_said_to_be():
    found = across(torch.ones(8, 1, 3), torch.randn(8, 2, 3))
    assert np.isnan(found.matrix).all()
    assert found.to_dict()["matrix"] == [[None, None]]
    assert "layers.0.gate: undefined, as its maps do not vary between images" in found.summary()


def test_both_must_see_the_same_images():
    with pytest.raises(AnalysisInputError, match="a saw 8 images, b 9; show both the same, in batches of one size"):
        across(torch.randn(8, 1, 3), torch.randn(9, 1, 3))


def test_runs_that_differ_in_their_seed_have_students_interval_over_runs():
    runs = {f"run{i}": of_maps(torch.randn(1, 1, 30) + torch.randn(20, 3, 30), 10) for i in range(4)}
    found = over_seeds("net", runs)
    values = np.array([run.stages[0].readings.numbers["mean_r"].value for run in runs.values()])
    reach = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    number = found.stages[0]["mean_r"]
    assert (number.value, number.low, number.high) == pytest.approx(
        (values.mean(), values.mean() - reach, values.mean() + reach)
    )
    document = found.to_dict()
    assert (document["network"], document["checkpoints"]) == ("net", list(runs))
    assert document["stages"][0]["mean_r_interval"] == pytest.approx([number.low, number.high])
    assert "mean over 4 runs that differ in their seed, with 95 % intervals for other seeds" in found.summary()


def test_two_runs_have_no_interval_and_other_stages_are_no_runs_of_one_network():
    two = {f"run{i}": of_maps(torch.randn(5, 3, 8)) for i in range(2)}
    found = over_seeds("net", two)
    assert found.to_dict()["stages"][0]["mean_r_interval"] is None
    assert "it takes 3 for an interval" in found.summary()
    with pytest.raises(AnalysisInputError, match="run0, other have other stages"):
        over_seeds("net", {"run0": two["run0"], "other": of_maps(torch.randn(5, 2, 8))})


def test_the_document_holds_the_first_network_and_then_the_others():
    results = {name: BesideUntrained(of_maps(torch.randn(5, 3, 8))) for name in ("one", "two")}
    comparison = CorrelationComparison(results, (over_seeds("net", {n: r.trained for n, r in results.items()}),))
    document = comparison.to_dict()
    assert document["mean_r"] == results["one"].trained.mean_r
    assert [each["mean_r"] for each in document["compared"]] == [results["two"].trained.mean_r]
    assert len(document["seeds"]) == 1
    assert document["across"] == []
    assert set(comparison.datasets()) == {"stage1", "network2-stage1"}
