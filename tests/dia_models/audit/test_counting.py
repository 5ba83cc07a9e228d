"""Parameter counts without building the whole network, and what the command line does with networks of other tasks."""

import json

import pytest
import torch
from torch import nn

import cli.analyze
import cli.common.main
import cli.train
from dia_models import CheckpointInfo, ModelInputError, ModelSpec, create_model, list_models, save_checkpoint
from dia_models.audit.counting import ParameterCounter
from dia_models.data import Preprocessing
from dia_models.factory import task_of


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "pattern", ["cifar_resnet20*", "cifar_wrn52_4_dia_*", "resnet18*", "uvit*", "retinanet_resnet50*[acm]"]
)
def test_counts_are_those_of_the_built_networks(pattern):
    count = ParameterCounter()
    for name in list_models(pattern):
        with torch.device("meta"):
            assert count(ModelSpec(name=name)) == trainable(create_model(name)), name


def test_options_count():
    count, options = ParameterCounter(), [{}, {"reduction": 8}, {"attention_stages": (1,)}, {"batch_norm": False}]
    for option in options:
        with torch.device("meta"):
            model = create_model("cifar_resnet20_dia_lstm", num_classes=7, **option)
        assert count(ModelSpec(name="cifar_resnet20_dia_lstm", num_classes=7, options=option)) == trainable(model)
    with pytest.raises(ModelInputError, match="reduction 7 must divide"):
        count(ModelSpec(name="cifar_resnet20_se", options={"reduction": 7}))


def test_a_frozen_stages_attention_does_not_count():
    count = ParameterCounter()
    plain, shared = (count(ModelSpec(name=f"fasterrcnn_resnet50_fpn{a}")) for a in ("", "_dia_srm"))
    norms = {512: 4, 1024: 6, 2048: 3}  # 2N shared weights, a batch norm of 2N for each layer
    assert shared - plain == sum(2 * n + 2 * n * layers for n, layers in norms.items())


def test_networks_of_every_task_are_listed_with_their_count(capsys):
    assert cli.common.main.run(cli.train.app, ["models", "[rvuf]*_dia_lstm", "--num-classes", "1000", "--json"]) == 0
    models = {m["name"]: m["parameters"] for m in json.loads(capsys.readouterr().out)["models"]}
    assert list(models) == list_models("[rvuf]*_dia_lstm")
    assert models["uvit_small_dia_lstm"] == 44_915_040
    lstms = sum(10 * n * n // 4 + n // 2 + 8 * n for n in (64, 128, 256, 512))
    assert models["resnet18_dia_lstm"] == 11_689_512 + lstms


def test_tasks():
    assert task_of("resnet18_se") == task_of("vit_base_patch16") == "classification"
    assert task_of("uvit_small") == "noise prediction"
    assert task_of("retinanet_resnet50_fpn") == "detection"


def failure(capsys, code):
    assert code == 1
    return capsys.readouterr().err


def test_what_is_no_classifier_is_not_evaluated_as_one(capsys, tmp_path):
    model = create_model("uvit_small_dia_lstm", image_size=8)
    preprocessing = Preprocessing(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    info = CheckpointInfo(model=model.spec, data="digits", classes=(), preprocessing=preprocessing)
    save_checkpoint(tmp_path / "u.safetensors", model, info)
    ckpt = str(tmp_path / "u.safetensors")
    assert "a classifier is needed" in failure(capsys, cli.common.main.run(cli.train.app, ["eval", "--ckpt", ckpt]))
    arguments = ["correlation", "--ckpt", ckpt, "--data", "digits", "--out", str(tmp_path / "out")]
    assert "a classifier is needed" in failure(capsys, cli.common.main.run(cli.analyze.app, arguments))
