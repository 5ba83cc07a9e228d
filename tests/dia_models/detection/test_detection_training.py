"""Detectors train: the same after any interruption, in one process and in two, from a classifier, on bad data."""

import csv
import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import cli.common.main
import cli.train
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.checkpoints.warm_start import start_from
from dia_models.data import Preprocessing
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.recipe import load_recipe
from tests.support import forked
from tests.support.coco_data import coco

CPU = torch.device("cpu")
SMALL = {"min_size": 64, "max_size": 96}
PLAIN = {"epochs": 2, "batch_size": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("data") / "coco", train=9, test=3)


def config(folder, model="retinanet_resnet18_fpn_se", *, from_scratch=True, start_from=None, **changes):
    return RunConfig(
        model=model,
        options={**SMALL, "from_scratch": from_scratch},
        data=f"coco:{folder}",
        recipe_name="detection_from_scratch",
        recipe=load_recipe("detection_from_scratch", **{**PLAIN, **changes}),
        start_from=start_from,
    )


def weights(directory):
    return Checkpoint.read(directory / "model.safetensors").weights


class Cut(Callback):
    """A power cut in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise KeyError


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("done") / "run"
    return fit(config(folder), directory, CPU)


def test_a_run_leaves_its_scores_and_the_names_of_the_classes(done):
    document = json.loads((done.directory / "result.json").read_text())
    assert (document["images"], document["best"], document["outcome"]) == (3, None, "finished")
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert document["last"].keys() == {f"test_{name}" for name in names}
    assert 0 <= document["last"]["test_ap"] <= 1
    assert document["last"]["test_ap_large"] is None
    info = Checkpoint.read(done.directory / "model.safetensors").info
    assert info.classes == ("background", "blue", "red")
    assert info.preprocessing.mean == (0, 0, 0)
    rows = list(csv.DictReader((done.directory / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])


def test_an_interrupted_run_ends_with_the_same_weights(done, folder, tmp_path):
    with pytest.raises(KeyError):
        fit(config(folder), tmp_path / "cut", CPU, callbacks=(Cut(),))
    again = fit(config(folder), tmp_path / "cut", CPU, resume=True)
    assert again.last == done.last or str(again.last) == str(done.last)  # nan is not itself
    ours, theirs = weights(tmp_path / "cut"), weights(done.directory)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_train_what_one_does(folder, tmp_path):
    # Nine images are two batches of four and one of one, of which the second process gets none.
    plain = ["fit", "--model", "retinanet_resnet18_fpn_dia_lstm", "--data", f"coco:{folder}", "--set", "min_size=64"]
    plain += ["--set", "epochs=1", "--set", "batch_size=4", "--set", "precision=float32", "--set", "max_size=96"]
    plain += ["--set", "learning_rate=1e-4", "--set", "warmup=0", "--set", "clip=1"]
    for process in forked.run_two("import cli.train; cli.train.main()", *plain, "--out", "two", folder=tmp_path):
        assert process.code == 0, process.err.read_text()
    assert cli.common.main.run(cli.train.app, [*plain, "--out", str(tmp_path / "one")]) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    losses = [
        float(next(csv.DictReader((tmp_path / run / "metrics.csv").read_text().splitlines()))["train_loss"])
        for run in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_faster_rcnn_trains_its_unfixed_parts_only(tmp_path, precision):
    plan = config(
        coco(tmp_path / "coco", train=4, test=1),
        "fasterrcnn_resnet18_fpn_se",
        from_scratch=False,
        epochs=1,
        precision=precision,
    )
    fit(plan.model_copy(update={"keep_every": 1}), tmp_path / "run", CPU)
    one, other = (Checkpoint.read(path).weights for path in sorted((tmp_path / "run").glob("epoch-000?.safetensors")))
    changed = {name for name in one if not torch.allclose(one[name], other[name], atol=1e-6)}
    fixed = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
    assert changed
    assert not {name for name in changed if name.startswith(fixed) or ".bn" in name}
    assert {"backbone.fpn.inner_blocks.0.0.weight", "rpn.head.cls_logits.weight"} <= changed


def test_from_scratch_everything_is_trained(done, folder):
    torch.manual_seed(0)
    start = create_model("retinanet_resnet18_fpn_se", num_classes=3, from_scratch=True, **SMALL).state_dict()
    end = weights(done.directory)
    assert not torch.equal(start["backbone.body.conv1.weight"], end["backbone.body.conv1.weight"])
    assert not torch.equal(start["backbone.body.bn1.running_mean"], end["backbone.body.bn1.running_mean"])


def test_a_loss_that_is_not_finite_is_a_result(folder, tmp_path):
    result = fit(config(folder, learning_rate=1e30, schedule="step", clip=0.0, optimizer="sgd"), tmp_path / "nan", CPU)
    document = json.loads((result.directory / "result.json").read_text())
    assert (document["outcome"], document["nan_epoch"]) == ("nan", 1)
    assert set(document["last"].values()) == {None}


def test_damaged_images_are_left_out_with_a_warning_or_an_error(tmp_path):
    data = coco(tmp_path / "coco", train=4, test=2)
    (data / "train2017" / "001.png").write_bytes(b"nothing")
    (data / "val2017" / "002.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"1 image cannot be read and is left out: 00\d.png \(.+\)$"):
        result = fit(config(data, epochs=1), tmp_path / "run", CPU)
    assert result.last.images == 1
    with pytest.raises(ModelInputError, match="001.png: not an image"):
        fit(config(data, epochs=1), tmp_path / "strict", CPU, strict=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"validation": 0.1}, "validation=0.1 is not for detectors; accepted: 0"),
        ({"compile": True}, "compile=True is not for detectors; accepted: false"),
        ({"padding": 4}, "padding=4 is not for detectors"),
        ({"training_images": 10}, "training_images=10: there are 9 images to train on"),
    ],
)
def test_what_detectors_do_not_do_is_refused(folder, tmp_path, change, said):
    with pytest.raises(ModelInputError, match=said):
        fit(config(folder, **change), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "digits"], "accepted: coco, coco:PATH, digit-scenes"),
        (["--data", "digit-scenes", "--image-size", "64"], "a detector scales images by itself"),
        (["--data", "digit-scenes", "--channels", "1"], "a detector takes images of 3 channels"),
    ],
)
def test_wrong_options_are_one_line(arguments, said, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert cli.common.main.run(cli.train.app, ["fit", "--model", "retinanet_resnet18_fpn", *arguments, *out]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_classifier_on_scenes_is_told_where_they_belong(capsys, tmp_path):
    assert cli.common.main.run(cli.train.app, ["fit", "--model", "cifar_resnet11", "--data", "coco", "--out", "x"]) == 1
    assert "coco has objects in boxes, for detectors" in capsys.readouterr().err


def test_a_detector_starts_from_its_classifier_as_that_saw_images(folder, tmp_path):
    seen = Preprocessing(height=64, width=64, mean=(0.2, 0.5, 0.7), std=(0.3, 0.1, 0.5))
    classifier = create_model("resnet18_se", num_classes=5).eval()
    with torch.no_grad():
        classifier.bn1.running_mean.normal_()
    detector = create_model("retinanet_resnet18_fpn_se", num_classes=3, **SMALL).eval()
    start_from(held(classifier, seen, tmp_path), detector)
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    body, transform = detector.backbone.body, detector.transform
    with torch.no_grad():
        theirs = classifier.layer1(classifier.maxpool(classifier.relu(classifier.bn1(classifier.conv1(seen(pixels))))))
        normalized = transform.normalize(pixels[0].permute(2, 0, 1) / 255)[None]
        ours = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(normalized)))))
        inner = (..., slice(6, -6), slice(6, -6))  # at the border both see zeros, which are different colours
        torch.testing.assert_close(ours[inner][..., 0, 0], theirs[inner][..., 0, 0], rtol=1e-2, atol=1e-2)
        stem = body.bn1(body.conv1(normalized)), classifier.bn1(classifier.conv1(seen(pixels)))
    torch.testing.assert_close(stem[0][..., 2:-2, 2:-2], stem[1][..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)


def held(model, preprocessing, tmp_path):
    from dia_models import CheckpointInfo, save_checkpoint

    names = tuple(map(str, range(model.spec.num_classes)))
    info = CheckpointInfo(model=model.spec, data="x", classes=names, preprocessing=preprocessing)
    save_checkpoint(tmp_path / "c.safetensors", model, info)
    return Checkpoint.read(tmp_path / "c.safetensors")


def test_the_start_is_recorded_and_must_be_of_the_same_attention(folder, tmp_path):
    seen = Preprocessing(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    held(create_model("resnet18_se", num_classes=5), seen, tmp_path)
    start = str(tmp_path / "c.safetensors")
    result = fit(config(folder, from_scratch=False, start_from=start, epochs=1), tmp_path / "run", CPU)
    info = Checkpoint.read(result.directory / "model.safetensors").info
    assert info.recipe["start_from"] == Checkpoint.read(start).sha256
    wrong = config(folder, "retinanet_resnet18_fpn_dia_lstm", start_from=start)
    message = "c holds resnet18_se of 5 classes, which cannot start .*; accepted: that, or resnet18_dia_lstm"
    with pytest.raises(ModelInputError, match=message):
        fit(wrong, tmp_path / "wrong", CPU)


def test_eval_prints_and_writes_what_the_run_found(done, folder, tmp_path, capsys):
    ckpt = str(done.directory / "model.safetensors")
    out = tmp_path / "eval"
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", ckpt, "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "eval.json").read_text())
    assert document["schema"] == "dia.eval/1"
    assert document["ap"] == pytest.approx(done.last.scores["test_ap"], abs=1e-6)
    assert document["per_class_ap"].keys() == {"blue", "red"}
    rows = list(csv.DictReader((out / "detections.csv").read_text().splitlines()))
    assert {row["image"] for row in rows} <= {"001.png", "002.png", "003.png"}
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", ckpt, "--data", f"coco:{folder}"]) == 0
    printed = capsys.readouterr().out
    assert "3 images" in printed
    assert "AP_L –" in printed
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", ckpt, "--data", "digit-scenes"]) == 1
    assert "has other classes than run was trained on: 0, 1, 2, 3, 4, … instead of blue, red" in (
        capsys.readouterr().err
    )
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", ckpt, "--ckpt", "digits-resnet56-se"]) == 1
    assert "detectors and other networks have no score in common" in capsys.readouterr().err
