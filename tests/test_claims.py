"""What holds of the paper: verdicts by construction, tables to the letter, figures by what is in them."""

import json
from dataclasses import replace

import numpy as np
import pytest

import cli.analyze
import cli.main
from dia_analysis.claims import claims
from dia_analysis.sweep_result import Metric, SweepResult, TrainedRun
from figures import sweeps, tables


def run(variant, seed, accuracy, *, backbone="cifar_resnet164", data="cifar100", epochs=()):
    return TrainedRun(
        data=data,
        backbone=backbone,
        variant=variant,
        seed=seed,
        model="m",
        options={},
        parameters=1_234,
        sha256="0" * 64,
        outcome="nan" if accuracy is None else "finished",
        score=accuracy,
        best_score=accuracy,
        epochs=tuple(epochs),
    )


def result(name="table04", **scores):
    """A sweep whose variants have these accuracies, in percent; the last one is the reference."""
    reference = list(scores)[-1]
    runs = [run(v, i, None if s is None else s / 100) for v, own in scores.items() for i, s in enumerate(own)]
    versus = {variant: None if variant == reference else reference for variant in scores}
    return SweepResult(
        name, "Attention", "Table IV", "Which?", "paper", versus, len(runs), tuple(runs), {"command": "do"}
    )


def verdicts(**scores):
    return {claim.cell.variant: claim.verdict for claim in claims(result(**scores))}


BETTER, WORSE, SIMILAR = [70.0, 70.1, 70.2], [60.0, 60.1, 60.2], [69.0, 70.1, 71.3]


def test_the_verdict_follows_the_sign_and_the_interval():
    assert verdicts(SE=WORSE, **{"DIA-LSTM": BETTER}) == {"SE": "holds", "DIA-LSTM": None}
    assert verdicts(SE=BETTER, **{"DIA-LSTM": WORSE})["SE"] == "does not hold"
    assert verdicts(SE=SIMILAR, **{"DIA-LSTM": BETTER})["SE"] == "not enough runs"
    assert verdicts(SE=[60.0], **{"DIA-LSTM": [70.0]})["SE"] == "not enough runs"
    assert verdicts(Mine=WORSE, **{"DIA-LSTM": BETTER})["Mine"] == "the paper gives no number"


def test_a_detector_of_scenes_is_beside_the_papers_retinanet_on_coco():
    org, se, lstm = claims(result("table10", Org=WORSE, SE=SIMILAR, **{"DIA-LSTM": BETTER}))
    assert (org.printed.data, org.printed.backbone) == ("coco", "retinanet_resnet50_fpn")
    assert (org.printed.accuracy, se.printed.accuracy, lstm.printed.accuracy) == (35.5, 37.4, 38.8)
    assert org.printed_difference == pytest.approx(-3.3)  # the paper's column of improvements says 3.3
    assert (org.verdict, se.verdict, lstm.verdict) == ("holds", "not enough runs", None)


@pytest.mark.parametrize(
    ("org", "lstm", "verdict"),
    [
        ([None] * 3, BETTER, "holds"),
        ([None, 50.0, None], BETTER, "does not hold"),
        (WORSE, BETTER, "does not hold"),
        ([None] * 3, [None] * 3, "does not hold"),
    ],
)
def test_where_the_paper_prints_nan_every_run_must_explode(org, lstm, verdict):
    assert verdicts(name="table16", Org=org, **{"DIA-LSTM": lstm})["Org"] == verdict


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


GOLDEN = """## Table IV: Attention

Which? 6 of 6 runs, paper scale: `do`.

| data | backbone | variant | parameters | runs | paper | ours | paper's difference | our difference | against | \
t-test p | Welch p | Holm p | Hedges g | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| cifar100 | cifar_resnet164 | SE | 1,234 | 3 | 75.23 ± 0.18 | 60.10 ± 0.10 | -1.86 | -10.00 [-10.23, -9.77] | \
DIA-LSTM | 2.7e-08 | 2.7e-08 | 2.7e-08 | -80 | holds |
| cifar100 | cifar_resnet164 | DIA-LSTM | 1,234 | 3 | 77.09 ± 0.26 | 70.10 ± 0.10 |  |  |  |  |  |  |  |  |

Paper: cifar_resnet164 on cifar100. Ours: test accuracy after the last epoch in percent, mean ± standard deviation \
over seeds; differences with the 95 % interval of Welch's test; Holm's p is Welch's corrected for all rows.
"""


def test_the_table_to_the_letter():
    made = result(SE=WORSE, **{"DIA-LSTM": BETTER})
    assert tables.markdown(made) == GOLDEN
    assert tables.csv_text(made).splitlines()[1].startswith('cifar100,cifar_resnet164,SE,"1,234",3,75.23 ± 0.18')
    assert r"cifar\_resnet164 & SE & 1,234 & 3 & 75.23 $\pm$ 0.18" in tables.latex(made)


def test_the_commands(tmp_path, capsys):
    made = result(SE=WORSE, **{"DIA-LSTM": BETTER})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sweep.json").write_text(json.dumps(made.to_dict()))
    arguments = ["tables", "--runs", str(tmp_path / "runs")]
    assert cli.main.run(cli.analyze.app, [*arguments, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == GOLDEN.strip()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".csv", ".tex"}
    assert cli.main.run(cli.analyze.app, [*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"][0]["rows"]
    assert [row["verdict"] for row in rows] == ["holds", ""]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no sweep.json is there"),
        ("{", "sweep.json is no JSON"),
        ("{}", "no result of a sweep: 'schema'"),
        ("[]", "sweep.json is no result of a sweep"),
        ('{"schema": "dia.sweep/1", "runs": [{}]}', "runs.0.data: Field required"),
        ('{"schema": "dia.cost/1"}', "accepted: dia.sweep/1"),
    ],
)
def test_runs_that_are_none(tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    assert cli.main.run(cli.analyze.app, ["tables", "--runs", str(tmp_path)]) == 1
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
    assert "Test Fréchet distance (less is better), mean" in made.summary()
    assert "Ours: test Fréchet distance after the last epoch (less is better), mean" in tables.markdown(made)
    assert "Paper: it prints no numbers for these" in tables.markdown(made)
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
