"""What holds of the paper: verdicts by construction, tables to the letter, figures by what is in them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import cli.analyze
import cli.common.main
from dia_analysis.paper import tables
from dia_analysis.paper.claims import claims
from dia_analysis.paper.read_sweeps import read_sweeps
from dia_analysis.paper.sweeps import Metric, SweepResult
from dia_analysis.statistics.significance import smallest_difference
from figures import sweeps
from tests.support.sweep_results import BETTER, NARROW, SIMILAR, WIDE, WORSE, result, run


def verdicts(**scores):
    return {claim.cell.variant: claim.verdict for claim in claims(result(**scores))}


def claim_of(variant, made):
    return next(claim for claim in claims(made) if claim.cell.variant == variant)


def test_holms_p_and_the_sign_decide():
    assert verdicts(SE=WORSE, **{"DIA-LSTM": BETTER}) == {"SE": "holds", "DIA-LSTM": None}
    assert verdicts(SE=BETTER, **{"DIA-LSTM": WORSE})["SE"] == "does not hold"
    assert verdicts(SE=WIDE, **{"DIA-LSTM": BETTER})["SE"] == "inconclusive"
    assert verdicts(Mine=WORSE, **{"DIA-LSTM": BETTER})["Mine"] == "the paper gives no number"


def test_one_comparison_that_holds_alone_is_inconclusive_among_many():
    """Welch's p of 0.02 alone is below 0.05; corrected for eight comparisons it is not."""
    scores = {"SE": [69.2, 69.4, 69.6, 70.4], "DIA-LSTM": [70.4, 70.5, 70.7, 71.9]}
    alone = claim_of("SE", result(**scores))
    assert 0.01 < alone.cell.difference.welch_p == alone.cell.holm_p < 0.05
    assert alone.verdict == "holds"
    others = {name: [*WIDE, 70.3] for name in ("Org", "ECA", "CBAM", "SRM", "SPA", "SEM", "SPEM")}
    among = claim_of("SE", result(**others, **scores))
    assert among.cell.tests == 8
    assert among.cell.holm_p == pytest.approx(8 * alone.cell.holm_p)
    assert among.verdict == "inconclusive"


def test_what_excludes_the_papers_difference_but_not_zero_is_smaller_than_the_papers():
    """The paper: -1.86. The interval of NARROW against BETTER lies within ±0.3 of zero."""
    found = claim_of("SE", result(SE=NARROW, **{"DIA-LSTM": BETTER}))
    low, high = found.cell.simultaneous_interval
    assert -1.86 < low < 0 < high
    assert (found.verdict, found.reason) == ("smaller than the paper's", "")
    wide = claim_of("SE", result(SE=WIDE, **{"DIA-LSTM": BETTER}))
    assert wide.cell.simultaneous_interval[0] < -1.86
    assert wide.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("own", "said"),
    [(WORSE, "larger than the paper's"), ([69.5, 69.6, 69.7], "smaller than the paper's"), ([67.6, 68.2, 68.9], "")],
)
def test_a_claim_that_holds_says_if_the_difference_is_another(own, said):
    found = claim_of("SE", result(SE=own, **{"DIA-LSTM": BETTER}))
    assert (found.verdict, found.reason) == ("holds", said)


def test_the_simultaneous_interval_is_welchs_at_a_share_of_the_level_and_holms_p_agrees_with_it():
    made = result(SE=SIMILAR, ECA=WIDE, SRM=WORSE, **{"DIA-LSTM": BETTER})
    for claim in claims(made)[:3]:
        cell = claim.cell
        scores = [[100 * r.score for r in made.runs if r.variant == name] for name in (cell.variant, "DIA-LSTM")]
        interval = stats.ttest_ind(*scores, equal_var=False).confidence_interval(1 - 0.05 / 3)
        assert cell.simultaneous_interval == pytest.approx((interval.low, interval.high))
        if not interval.low <= 0 <= interval.high:
            assert cell.holm_p < 0.05


def test_an_inconclusive_row_says_what_could_have_been_seen():
    found = claim_of("SE", result(SE=WIDE, ECA=WIDE, **{"DIA-LSTM": BETTER}))
    pooled = np.sqrt((np.var(WIDE, ddof=1) + np.var(BETTER, ddof=1)) / 2)
    assert found.cell.smallest_difference == pytest.approx(smallest_difference(pooled, (3, 3), 0.025))
    row = dict(zip(tables.HEAD, tables.rows(result(SE=WIDE, ECA=WIDE, **{"DIA-LSTM": BETTER}))[1], strict=True))
    assert row["detectable"] == f"{found.cell.smallest_difference:.2f}"


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"SE": [60.0], "DIA-LSTM": [70.0]}, "it takes 2 runs of each, and there are 1 and 1"),
        ({"SE": WORSE, "DIA-LSTM": [70.0]}, "it takes 2 runs of each, and there are 3 and 1"),
        ({"SE": WORSE}, "there are 3 and 0"),
        ({"SE": [60.0, 60.0], "DIA-LSTM": [70.0, 70.0]}, "no run differs from another of its kind"),
        ({"SE": [60.0, 60.1, None], "DIA-LSTM": BETTER}, "1 of 3 runs exploded against 0 of 3, so the scores of the"),
    ],
)
def test_what_cannot_be_tested_is_inconclusive_and_says_why(scores, said):
    made = replace(result(**scores), versus={"SE": "DIA-LSTM", "DIA-LSTM": None})
    found = claim_of("SE", made)
    assert found.verdict == "inconclusive"
    assert said in found.reason


def test_a_detector_of_scenes_is_beside_the_papers_retinanet_on_coco():
    org, se, lstm = claims(result("table10", Org=WORSE, SE=WIDE, **{"DIA-LSTM": BETTER}))
    assert (org.printed.data, org.printed.backbone) == ("coco", "retinanet_resnet50_fpn")
    assert (org.printed.accuracy, se.printed.accuracy, lstm.printed.accuracy) == (35.5, 37.4, 38.8)
    assert org.printed_difference == pytest.approx(-3.3)  # the paper's column of improvements says 3.3
    assert (org.verdict, se.verdict, lstm.verdict) == ("holds", "inconclusive", None)


def of_explosions(org, lstm, *, backbone="cifar_resnet83", epochs=180):
    """Table XVI: the paper prints nan for Org and 72.34 for DIA-LSTM, in 83 layers after 180 epochs."""
    made = result("table16", Org=org, **{"DIA-LSTM": lstm})
    runs = tuple(replace(run, backbone=backbone) for run in made.runs)
    return claim_of("Org", replace(made, runs=runs, provenance={"recipes": {backbone: {"epochs": epochs}}}))


SEVEN = [70.0, 70.1, 70.2, 70.3, 70.4, 70.5, 70.6]


@pytest.mark.parametrize(
    ("org", "lstm", "verdict", "said"),
    [
        ([None] * 7, SEVEN, "holds", ""),
        (SEVEN, [None] * 7, "does not hold", ""),
        ([None] * 3, BETTER, "inconclusive", "3 of 3 runs exploded against 0 of 3; no outcome of so few runs could"),
        ([*[None] * 4, *BETTER], SEVEN, "inconclusive", "4 of 7 runs exploded against 0 of 7; 5 of 7 against 0 of 7"),
        (SEVEN, SEVEN, "inconclusive", "0 of 7 runs exploded against 0 of 7"),
        ([None], [70.0], "inconclusive", "it takes 2 runs of each"),
    ],
)
def test_where_the_paper_prints_nan_counts_are_compared_exactly(org, lstm, verdict, said):
    found = of_explosions(org, lstm)
    assert found.verdict == verdict
    assert said in found.reason
    if min(len(org), len(lstm)) > 1:
        table = [[side.count(None), len(side) - side.count(None)] for side in (org, lstm)]
        assert found.cell.holm_p == pytest.approx(stats.fisher_exact(table).pvalue)


def test_a_short_shallow_run_that_does_not_explode_is_no_evidence():
    for small in ({"backbone": "cifar_resnet20"}, {"epochs": 6}, {"epochs": None}):
        assert of_explosions(SEVEN, [None] * 7, **small).verdict == "inconclusive"
        assert of_explosions([None] * 7, SEVEN, **small).verdict == "holds"
    found = of_explosions(SEVEN, SEVEN, backbone="cifar_resnet20", epochs=6)
    assert "20 layers in 6 epochs are a smaller trial than the paper's 83 layers in 180" in found.reason


def test_counts_and_scores_are_one_family():
    made = result("table16", Org=[None] * 7, SE=SEVEN, **{"DIA-LSTM": SEVEN})
    org, se, _ = made.cells()
    assert (org.tests, se.tests) == (2, 2)
    assert se.exact_p == 1
    assert org.holm_p == pytest.approx(2 * org.exact_p)


def on(data, backbone, name="table06", **scores):
    made = result(name, **scores)
    return replace(made, runs=tuple(replace(run, data=data, backbone=backbone) for run in made.runs))


def test_other_data_than_the_papers_are_named_and_the_verdict_is_about_them():
    made = on("cifar10", "cifar_resnet20", SE=WORSE, **{"DIA-LSTM": BETTER})
    assert tables.heading(made) == "Table IV: Attention, on cifar10 (the paper: stl10)"
    row = dict(zip(tables.HEAD, tables.rows(made)[1], strict=True))
    assert (row["data"], row["verdict"]) == ("cifar10 (paper: stl10)", "holds on this data")
    assert "verdicts are about this data; the paper's numbers are of cifar_resnet164 on stl10" in tables.text(made, 200)
    same = on("stl10", "cifar_resnet164", SE=WORSE, **{"DIA-LSTM": BETTER})
    assert tables.heading(same) == "Table IV: Attention, on stl10"
    assert dict(zip(tables.HEAD, tables.rows(same)[1], strict=True))["verdict"] == "holds"


def test_the_paper_is_taken_on_the_same_data_if_it_has_them():
    found = claim_of("SE", on("cifar100", "cifar_resnet20", "table17", SE=WORSE, **{"DIA-LSTM": BETTER}))
    assert (found.printed.data, found.printed.accuracy, found.other_data) == ("cifar100", 63.92, None)


def test_the_papers_numbers_are_those_of_the_same_network_or_of_the_first_in_its_table():
    same = claims(result(SE=WORSE, **{"DIA-LSTM": BETTER}))[0]
    assert (str(same.printed), str(same.printed_versus)) == ("75.23 ± 0.18", "77.09 ± 0.26")
    assert same.printed_difference == pytest.approx(-1.86)
    small = SweepResult.from_dict(
        {**result(SE=WORSE, **{"DIA-LSTM": BETTER}).to_dict(), "runs": [], "planned": 0, "scale": "laptop"}
    )
    assert claims(small) == []


def test_holm_corrects_over_the_whole_sweep():
    cells = result(Org=[1.0, 2.0, 4.0], SE=[3.0, 5.0, 4.0], **{"DIA-LSTM": [6.0, 7.0, 9.0]}).cells()
    p = [cell.difference.welch_p for cell in cells[:2]]
    assert cells[0].holm_p == pytest.approx(2 * min(p))
    assert cells[1].holm_p == pytest.approx(max(2 * min(p), max(p)))
    assert np.isnan(cells[2].holm_p)


def test_the_document_is_read_back_and_its_numbers_are_computed_anew():
    made = result(SE=[*WORSE, None], **{"DIA-LSTM": BETTER})
    document = json.loads(json.dumps(made.to_dict()))
    assert SweepResult.from_dict(document).to_dict() == document
    se = document["cells"][0]
    assert (se["nan_runs"], se["accuracy"]["runs"], se["accuracy"]["mean"]) == (1, 3, pytest.approx(60.1))
    assert document["cells"][1]["holm_p"] is None


GOLDEN = """## Table IV: Attention, on cifar100

Which? 6 of 6 runs, paper scale: `do`.

| data | backbone | variant | parameters | runs | paper | ours | paper's difference | our difference | \
simultaneous interval | against | t-test p | Welch p | Holm p | Hedges g | verdict | reason |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| cifar100 | cifar_resnet164 | SE | 1,234 | 3 | 75.23 ± 0.18 | 60.10 ± 0.10 | -1.86 | -10.00 [-10.23, -9.77] | \
[-10.23, -9.77] | DIA-LSTM | 2.7e-08 | 2.7e-08 | 2.7e-08 | -80 | holds | larger than the paper's |
| cifar100 | cifar_resnet164 | DIA-LSTM | 1,234 | 3 | 77.09 ± 0.26 | 70.10 ± 0.10 |  |  |  |  |  |  |  |  |  |  |

Paper: cifar_resnet164 on cifar100. Ours: test accuracy after the last epoch in percent, mean ± standard deviation \
over seeds; differences with the 95 % interval of Welch's test, and the interval that holds for all comparisons of the \
table together in 95 % (Bonferroni). Holm's p is Welch's, or for counts of exploded runs Fisher's exact p, corrected \
for the 1 comparison of the table. Verdicts: all comparisons of the table are one family. *holds* and *does not hold*: \
Holm's p is below 0.05, and the difference has the paper's sign or the other; *smaller than the paper's*: the interval \
that holds for all leaves the paper's difference out, but not zero; *inconclusive*: neither, and beside it the \
detectable difference: the smallest that so many runs with this spread show in four of five cases. Trained: 6 runs \
in a precision that was not recorded.
"""


def test_the_table_to_the_letter():
    made = result(SE=WORSE, **{"DIA-LSTM": BETTER})
    assert tables.markdown(made) == GOLDEN
    assert tables.csv_text(made).splitlines()[1].startswith('cifar100,cifar_resnet164,SE,"1,234",3,75.23 ± 0.18')
    assert r"cifar\_resnet164 & SE & 1,234 & 3 & 75.23 $\pm$ 0.18" in tables.latex(made)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_terminal_gets_aligned_columns_that_fit_it(width):
    made = result(SE=WORSE, **{"DIA-LSTM": BETTER, "DIA-LSTM (Light)": WIDE})
    names = {"SE": "DIA-LSTM", "DIA-LSTM": None, "DIA-LSTM (Light)": "DIA-LSTM"}
    shown = tables.text(replace(made, versus=names), width)
    assert max(map(len, shown.splitlines())) <= width
    head, *body = shown[shown.index("variant") :].splitlines()[:4]
    at = head.index("our difference")
    assert [line[at] for line in body if len(line) > at] == ["-", "+"]
    assert all(word in head for word in ("paper's", "verdict"))
    assert ("Holm p" in head) == (width >= 100)
    assert "inconclusive below " in shown
    assert "|" not in shown


def test_the_words_are_singular_where_there_is_one():
    made = replace(result(SE=[1.0]), planned=1)
    assert "1 of 1 run, paper scale" in tables.text(made, 100)
    assert "Trained: 1 run in a precision" in tables.text(made, 100)


def test_the_table_says_in_which_precision_the_runs_were_trained():
    made = result(SE=WORSE)
    machine = {"precision": "bfloat16", "processor": "CPU X", "threads": 1}
    runs = (*(replace(run, machine=machine) for run in made.runs[:2]), made.runs[2])
    made = replace(made, runs=runs)
    assert "Trained: 2 runs in bfloat16 on CPU X, 1 run in a precision that was not" in tables.markdown(made)
    assert SweepResult.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_commands(tmp_path, capsys, monkeypatch):
    made = result(SE=WORSE, **{"DIA-LSTM": BETTER})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sweep.json").write_text(json.dumps(made.to_dict()))
    arguments = ["tables", "--runs", str(tmp_path / "runs")]
    assert cli.common.main.run(cli.analyze.app, [*arguments, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == GOLDEN.strip()
    assert {path.suffix for path in (tmp_path / "out").glob("table*")} == {".md", ".csv", ".tex"}
    assert read_sweeps(str(tmp_path / "runs")) == read_sweeps([tmp_path / "runs"])
    assert cli.common.main.run(cli.analyze.app, [*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"][0]["rows"]
    assert [row["verdict"] for row in rows] == ["holds", ""]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.common.main.run(cli.analyze.app, arguments) == 0
    assert capsys.readouterr().out.strip() == tables.text(made, 100).strip()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no sweep.json is there"),
        ("{", "sweep.json is not JSON; give a sweep's folder, or its sweep.json"),
        ("{}", "no result of a sweep: 'schema'"),
        ("[]", "sweep.json is not the result of a sweep"),
        ('{"schema": "dia.sweep/1", "runs": [{}]}', "runs.0.data: Field required"),
        ('{"schema": "dia.cost/1"}', "accepted: dia.sweep/1"),
    ],
)
def test_runs_that_are_none(tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    assert cli.common.main.run(cli.analyze.app, ["tables", "--runs", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --runs: ")
    assert said in error


def test_figure_10_has_a_point_for_every_number_of_blocks():
    scores = {"Org": WORSE, "SE, 4 blocks": BETTER, "SE, 1 block": SIMILAR, "DIA-SE, 1 block": BETTER}
    ax = sweeps.by_blocks(result(name="figure10", **scores)).axes[0]
    drawn = {container.get_label(): container.lines[0].get_xydata() for container in ax.containers}
    assert drawn["SE"][:, 0].tolist() == [1, 4]
    assert drawn["SE"][:, 1] == pytest.approx([np.mean(SIMILAR), np.mean(BETTER)])
    assert drawn["DIA-SE"][0, 1] == pytest.approx(np.mean(BETTER))
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "Org"] == pytest.approx([60.1])


def of_batches(name="figure08", **scores):
    details = {"features": "digits-resnet56-se", "images": 500, "of_test_images": 2.5}
    details |= {"features_sha256": "abcdef012345", "reference_images": 1437}
    runs = [
        replace(run(variant, seed, score, data="digits", backbone="uvit_tiny"), details=details)
        for variant, values in scores.items()
        for seed, score in enumerate(values)
    ]
    versus = dict.fromkeys(scores)
    metric = Metric("frechet", "Fréchet distance", "", False)
    return SweepResult(name, "t", "Figure 8", "q?", "laptop", versus, len(runs), tuple(runs), {"command": "c"}, metric)


def test_figure_8_has_a_point_for_every_batch_size_and_says_what_is_measured():
    scores = {"Org, batch 16": [20.0, 22.0], "Org, batch 4": [30.0], "DIA-LSTM, batch 4": [28.0, 26.0, 27.0]}
    ax = sweeps.by_batch_size(of_batches(**scores)).axes[0]
    drawn = {container.get_label(): container.lines[0].get_xydata() for container in ax.containers}
    assert drawn["Org"] == pytest.approx(np.array([[4, 30], [16, 21]]))
    assert drawn["DIA-LSTM"][0, 0] == pytest.approx(4, rel=0.1)
    assert drawn["DIA-LSTM"][0, 1] == pytest.approx(27)
    bars = ax.containers[-1].lines[2][0].get_segments()[0][:, 1]
    assert bars == pytest.approx([26, 28])
    assert ax.get_ylabel() == "Fréchet distance\n(features of digits-resnet56-se,\n500 images)"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["4", "16"]
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "real test images"] == [2.5]


def test_only_in_inceptions_features_it_is_the_fid():
    made = of_batches(**{"Org, batch 4": [30.0]})
    inception = replace(made, runs=tuple(replace(r, details={"features": "inception", "images": 9}) for r in made.runs))
    assert sweeps.by_batch_size(inception).axes[0].get_ylabel() == "FID (9 images)"


def test_a_sweep_by_another_metric_says_which_and_reads_itself_again():
    made = of_batches(**{"Org, batch 4": [30.0, 31.0], "DIA-LSTM, batch 4": [28.0, None]})
    document = made.to_dict()
    assert document["runs"][0]["frechet"] == 30.0
    assert "accuracy" not in document["runs"][0]
    assert document["metric"]["higher_is_better"] is False
    assert SweepResult.from_dict(json.loads(json.dumps(document))) == made
    assert made.cells()[0].score.mean == 30.5
    assert "test Fréchet distance after the last epoch (lower is better), mean" in tables.text(made, 200)
    assert "Ours: test Fréchet distance after the last epoch (lower is better), mean" in tables.markdown(made)
    assert "Paper: it prints no numbers here" in tables.markdown(made)
    assert "features of digits-resnet56-se (SHA-256 abcdef01), of 500 generated images from" in tables.markdown(made)


def test_figure_14_draws_the_mean_curve_and_leaves_epochs_out_that_are_not_finite():
    epochs = [{"val_accuracy": 0.1, "train_loss": 3.0}, {"val_accuracy": 0.3, "train_loss": None}]
    runs = (run("Org", 0, 0.3, epochs=epochs), run("Org", 1, 0.5, epochs=[{"val_accuracy": 0.2, "train_loss": 1.0}]))
    made = SweepResult("figure14", "t", "s", "q", "laptop", {"Org": None}, 2, runs, {"command": "c"})
    accuracy, loss = sweeps.along_training(made).axes
    assert accuracy.lines[0].get_xydata() == pytest.approx(np.array([[1, 15], [2, 30]]))
    assert loss.lines[0].get_xydata() == pytest.approx(np.array([[1, 2.0]]))
    assert accuracy.lines[0].get_label() == "Org (test 40.00 ± 14.14)"


def test_a_missing_value_is_null_not_nan():
    assert "NaN" not in json.dumps(result(SE=[1.0]).to_dict(), allow_nan=False)
