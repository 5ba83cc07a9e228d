"""dia-train eval: a two-class data set with patients, several checkpoints, and what it writes."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dia_analysis.paper.table_xi import TABLE_XI
from dia_analysis.statistics.binary_metrics import best_threshold, diagnose
from dia_models import Checkpoint, save_checkpoint
from dia_models.classification.evaluation import Predictions, validation_images
from dia_models.data import hold_out, open_data
from dia_models.data.chest_xray import patient
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.read_images import read_classes, split_validation
from dia_models.training.recipe import load_recipe
from tests.support.commands import SE, analyze, failure, train
from tests.support.xray_data import chest_xray, network


@pytest.fixture
def data(tmp_path):
    return chest_xray(tmp_path / "data")


def evaluated(capsys, data, *arguments, code=0):
    found = train("eval", *arguments, "--data", "chest-xray", "--data-dir", data, "--json")
    assert found == code
    return json.loads(capsys.readouterr().out)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read(path):
    found = rows(path)
    labels = np.array([row["label"] == "PNEUMONIA" for row in found])
    return labels, np.array([float(row["score_PNEUMONIA"]) for row in found]), [row["patient"] for row in found]


def test_the_numbers_can_be_made_again_from_what_it_writes(tmp_path, data, capsys):
    ckpt, out = network(tmp_path / "net.safetensors"), tmp_path / "out"
    document = evaluated(capsys, data, "--ckpt", ckpt, "--out", out)
    assert document == json.loads((out / "eval.json").read_text())
    labels, scores, patients = read(out / "predictions.csv")
    assert document["auroc"]["value"] == pytest.approx(roc_auc_score(labels, scores))
    assert document["chosen_threshold"]["value"] == best_threshold(*read(out / "validation.csv")[:2])
    again = diagnose(labels, scores, patients).to_dict()
    accuracy = again.pop("accuracy")
    assert {key: document[key] for key in again} == again
    assert document["accuracy_interval"] == accuracy
    assert accuracy["value"] == pytest.approx(document["accuracy"])
    assert document["sensitivity"]["value"] == document["per_class_accuracy"]["PNEUMONIA"]
    chosen = diagnose(labels, scores, patients, threshold=document["chosen_threshold"]["value"])
    assert document["at_chosen_threshold"] == chosen.to_dict()
    unseen = np.array([p not in ("person0", "person1") for p in patients])
    kept = diagnose(labels[unseen], scores[unseen], [p for p in patients if p not in ("person0", "person1")])
    assert document["without_patients_in_training"]["at_0.5"] == kept.to_dict()
    assert document["patients_in_training"] == {"patients": 2, "images": 4}
    assert document["class_images"] == {"NORMAL": 8, "PNEUMONIA": 8}
    assert (document["patients"], document["majority_accuracy"]) == (8, 0.5)


def test_the_validation_images_are_those_of_the_run(tmp_path, data):
    changes = {"epochs": 1, "batch_size": 8, "validation": 0.3, "learning_rate": 0.01}
    config = RunConfig(
        model="cifar_resnet11",
        data="chest-xray",
        recipe_name="one_cycle",
        recipe=load_recipe("one_cycle", **changes),
        image_size=16,
        channels=1,
        seed=3,
    )
    fit(config, tmp_path / "run", torch.device("cpu"), data_dir=data)
    info = Checkpoint.read(tmp_path / "run" / "model.safetensors").info
    held = validation_images(info, lambda: open_data("chest-xray", "train", data).load((16, 16), 1))
    own = split_validation(config, read_classes("chest-xray", 16, 1, data_dir=data)[0])[1]
    assert held.names == own.names
    assert torch.equal(held.pixels, own.pixels)
    assert 0 < len(held) < 24


def test_without_validation_or_training_images_the_threshold_is_one_half_and_it_says_why(tmp_path, data, capsys):
    none = network(tmp_path / "none.safetensors", validation=None)
    found = evaluated(capsys, data, "--ckpt", none)
    reason = "not chosen, because the run held out no images"
    assert found["chosen_threshold"] == {"value": 0.5, "source": reason}
    assert found["patients_in_training"] == {"patients": 2, "images": 4}
    shutil.rmtree(data / "chest_xray" / "train")
    found = evaluated(capsys, data, "--ckpt", network(tmp_path / "net.safetensors"))
    reason = "not chosen, because the training images are not there to look"
    assert found["chosen_threshold"] == {"value": 0.5, "source": reason}
    assert found["patients_in_training"] is None


def test_several_checkpoints_are_compared_and_runs_of_one_network_averaged(tmp_path, data, capsys):
    paths = [network(tmp_path / f"net-{seed}.safetensors", seed=seed) for seed in range(2)]
    paths.append(network(tmp_path / "se.safetensors", "cifar_resnet11_se"))
    ckpts = [part for path in paths for part in ("--ckpt", path)]
    document = evaluated(capsys, data, *ckpts, "--out", tmp_path / "out")
    assert [e["checkpoint"] for e in document["evaluations"]] == ["net-0", "net-1", "se"]
    assert [(c["first"], c["second"]) for c in document["comparisons"]] == [
        ("net-0", "net-1"), ("net-0", "se"), ("net-1", "se"),
    ]  # fmt: skip
    (group,) = document["networks"]
    values = [e["auroc"]["value"] for e in document["evaluations"][:2]]
    assert (group["network"], group["checkpoints"]) == ("cifar_resnet11", ["net-0", "net-1"])
    assert group["at_0.5"]["auroc"]["mean"] == pytest.approx(np.mean(values))
    assert {row["checkpoint"] for row in rows(tmp_path / "out" / "predictions.csv")} == {"net-0", "net-1", "se"}
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 3 * 16
    assert [e["paper"]["all"] for e in document["evaluations"]] == [81.4, 81.4, 85.3]
    assert train("eval", *ckpts, "--data", "chest-xray", "--data-dir", data) == 0
    text = capsys.readouterr().out
    assert "  paper: ResNet50-se (224x224)  99.2" in text
    assert "McNemar's exact p = " in text
    assert "corrected by Holm's method for the " in text
    assert [c["holm"]["tests"] for c in document["comparisons"]] == [6] * 3  # too few patients to test AUROCs
    assert "cifar_resnet11, 2 runs, mean ± standard deviation" in text
    assert "file names begin with the same personN" in text


def test_the_papers_rows_are_those_printed():
    """Table XI, in the order pneumonia, normal, all."""
    assert TABLE_XI == {
        "": (97.8, 52.5, 81.4),
        "se": (99.2, 60.8, 85.3),
        "dia_lstm": (99.4, 71.1, 89.2),
        "dia_lstm_light": (99.4, 63.7, 86.6),
    }


def test_other_networks_have_no_row_in_the_paper(tmp_path, data, capsys):
    eca = network(tmp_path / "eca.safetensors", "cifar_resnet11_eca")
    assert evaluated(capsys, data, "--ckpt", eca)["paper"] is None


def test_other_peoples_images_do_not_stand_beside_the_papers(tmp_path, data, capsys):
    """Of the same classes and a network that the paper has: its Table XI is of chest-xray alone."""
    ckpt, other = network(tmp_path / "net.safetensors"), f"folder:{data / 'chest_xray'}"
    assert evaluated(capsys, data, "--ckpt", ckpt)["paper"] is not None
    assert train("eval", "--ckpt", ckpt, "--data", other, "--data-dir", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["paper"] is None
    assert train("eval", "--ckpt", ckpt, "--data", other, "--data-dir", data) == 0
    text = capsys.readouterr().out
    assert "Table XI" not in text
    assert "paper" not in text


# networks that diverged


def spoilt(path, name="bad"):
    """A copy of a checkpoint whose first weights are NaN."""
    found = Checkpoint.read(path)
    model = found.build()
    next(model.parameters()).data.fill_(float("nan"))
    copy = path.with_name(f"{name}.safetensors")
    save_checkpoint(copy, model, found.info)
    return copy


def test_a_network_that_diverged_has_no_accuracy(tmp_path, capsys):
    bad = spoilt(network(tmp_path / "net.safetensors", data="digits", classes=tuple("0123456789"), size=8))
    assert train("eval", "--ckpt", bad, "--out", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    sentence = "bad: the network's outputs are not finite for 360 of 360 images: it diverged"
    assert out == f"{sentence}, so it has no accuracy\n"
    assert err.splitlines()[-1].startswith(f"error: --ckpt: {sentence}. ")
    assert train("eval", "--ckpt", bad, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["accuracy"], document["loss"], document["nonfinite"]) == (None, None, 360)
    assert set(document["per_class_accuracy"].values()) == {None}
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == document


def test_a_network_that_diverged_stops_neither_the_others_nor_blames_the_data(tmp_path, data, capsys):
    good = network(tmp_path / "net.safetensors")
    bad = spoilt(good)
    given = ("--ckpt", bad, "--ckpt", good, "--data", "chest-xray", "--data-dir", data)
    assert train("eval", *given) == 1
    out, err = capsys.readouterr()
    assert "bad: the network's outputs are not finite for 16 of 16 images: it diverged" in out
    assert "net on 16 images of chest-xray: accuracy" in out
    assert len(err.splitlines()[-1]) <= 300
    document = evaluated(capsys, data, *given[:4], code=1)
    assert [each["accuracy"] is None for each in document["evaluations"]] == [True, False]
    assert "auroc" not in document["evaluations"][0]
    message = failure(capsys, analyze("report", "--xray", *given, "--out", tmp_path / "page.html"))
    assert "it diverged" in message
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("command", ["gradcam", "regions"])
def test_heatmaps_of_a_network_that_diverged_are_refused(command, tmp_path, data, capsys):
    bad = spoilt(network(tmp_path / "net.safetensors"))
    code = analyze(command, "--ckpt", bad, "--data-dir", data, "--out", tmp_path / "out")
    message = failure(capsys, code)
    assert "--ckpt: bad: the class scores of image #0 are NaN or infinite; its weights are not finite" in message
    assert not (tmp_path / "out").exists()


def test_one_image_without_finite_outputs_is_enough():
    logits = torch.tensor([[2.0, 1.0], [0.0, float("inf")], [1.0, 3.0]])
    found = Predictions(("a", "b", "c"), torch.tensor([0, 1, 1]), logits).evaluation(2)
    assert (found.images, found.nonfinite, found.per_class_accuracy) == (3, 1, (None, None))
    assert np.isnan([found.accuracy, found.loss]).all()
    finite = Predictions(("a", "c"), torch.tensor([0, 1]), logits[::2]).evaluation(2)
    assert (finite.nonfinite, finite.accuracy) == (0, 1)


def test_two_classes_without_patients_count_every_image(tmp_path, data, capsys):
    folder = data / "chest_xray"
    ckpt = network(tmp_path / "net.safetensors", data=f"folder:{folder}")
    assert train("eval", "--ckpt", ckpt, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["patients"], document["images"]) == (16, 16)
    assert document["grouping"].startswith("no patient IDs")
    assert document["patients_in_training"] is None
    assert document["chosen_threshold"]["source"].startswith("the highest balanced accuracy on the 6 validation images")


def test_networks_of_other_classes_are_not_compared(tmp_path, data, capsys):
    ckpt = network(tmp_path / "net.safetensors")
    code = train("eval", "--ckpt", ckpt, "--ckpt", SE, "--data", "chest-xray", "--data-dir", data)
    assert f"--ckpt: {SE} and net do not know the same classes" in failure(capsys, code)


def test_existing_results_are_refused_before_any_work(tmp_path, data, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    ckpt = network(tmp_path / "net.safetensors")
    run = ("eval", "--ckpt", ckpt, "--data-dir", data, "--out", tmp_path / "out")
    assert "exists; choose another folder" in failure(capsys, train(*run))
    assert "holds something else than results" in failure(capsys, train(*run, "--overwrite"))


def test_more_classes_are_still_evaluated_and_written(tmp_path, capsys):
    assert train("eval", "--ckpt", SE, "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert "auroc" not in document
    found = rows(tmp_path / "out" / "predictions.csv")
    best = [max(range(10), key=lambda c: float(row[f"score_{c}"])) for row in found]
    right = sum(row["label"] == str(number) for row, number in zip(found, best, strict=True))
    assert right / len(found) == pytest.approx(document["accuracy"])
    assert not (tmp_path / "out" / "validation.csv").exists()


def test_the_split_leaves_no_patient_on_both_sides(data):
    kept, held = hold_out(open_data("chest-xray", "train", data).load((16, 16), 1), 0.25, 0)
    assert not {patient(name) for name in kept.names} & {patient(name) for name in held.names}
