"""Structure: published parameter counts, names, options, initial values."""

import math

import pytest
import torch
from torch import nn

from dia_models import ModelInputError, ModelSpec, create_model, list_models
from dia_models.attention import Attention, attention_names
from dia_models.backbones.registry import BACKBONES
from dia_models.factory import blueprint

PUBLISHED = {  # 100 classes, trainable parameters
    "cifar_resnet56": 614_452,
    "cifar_resnet83": 892_660,
    "cifar_resnet164": 1_727_284,
    "cifar_resnet245": 2_561_908,
    "cifar_resnet326": 3_396_532,
    "cifar_resnet407": 4_231_156,
    "cifar_resnet164_se": 1_929_388,
    "cifar_resnet56_dia_lstm": 833_300,
    "cifar_resnet83_dia_lstm": 1_111_508,
    "cifar_resnet164_dia_lstm": 1_946_132,
    "cifar_resnet245_dia_lstm": 2_780_756,
    "cifar_resnet407_dia_lstm": 4_450_004,
    "cifar_resnet164_eca": 1_727_284 + 18 * (3 + 5 + 5),
    "cifar_resnet164_dia_eca": 1_727_284 + (3 + 5 + 5),
    "cifar_resnet164_dia_se": 1_727_284 + (1_929_388 - 1_727_284) // 18,
}
ATTENTIONS = ("", "_se", "_eca", "_dia_se", "_dia_eca", "_dia_lstm")


def parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    with torch.device("meta"):
        assert parameters(create_model(name, num_classes=100)) == PUBLISHED[name]


@pytest.mark.parametrize(("reduction", "millions"), [(1, 2.592), (8, 1.839), (16, 1.785)])
def test_dia_lstm_reduction_gives_the_counts_of_table_12(reduction, millions):
    with torch.device("meta"):
        model = create_model("cifar_resnet164_dia_lstm", num_classes=100, reduction=reduction)
    assert round(parameters(model) / 1e6, 3) == millions


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (32, 32)), (3, (9, 20))])
def test_every_attention_takes_any_image_of_at_least_8x8(attention, channels, size):
    model = create_model(f"cifar_resnet20{attention}", num_classes=7, in_channels=channels)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("attention", ["", *(f"_{name}" for name in attention_names())])
def test_one_step_reaches_every_parameter(attention):
    """Away from the starting values: weights that start at zero keep others from having a gradient at first."""
    model = create_model(f"cifar_resnet20{attention}")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.rand_like(parameter)
    model(torch.randn(8, 3, 16, 16)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_smaller_images_are_refused():
    with pytest.raises(ModelInputError, match="7x8 are too small; at least 8x8"):
        create_model("cifar_resnet11")(torch.randn(1, 3, 7, 8))


def test_convolutions_start_as_published():
    model = create_model("cifar_resnet164")
    conv = model.stages[2].blocks[3].branch[3]
    assert isinstance(conv, nn.Conv2d)
    assert conv.kernel_size == (3, 3)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05)


def test_the_stride_is_on_the_3x3_convolution_of_the_first_block():
    stage = create_model("cifar_resnet29").stages[1]
    strides = [[m.stride[0] for m in block.branch if isinstance(m, nn.Conv2d)] for block in stage.blocks]
    assert strides == [[1, 2, 1], [1, 1, 1], [1, 1, 1]]


def test_a_shared_module_is_one_module_and_individual_ones_are_several():
    assert len(create_model("cifar_resnet29_se").stages[0].attention) == 3
    assert isinstance(create_model("cifar_resnet29_dia_se").stages[0].attention, Attention)


def test_same_seed_same_weights():
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(create_model("cifar_resnet20_dia_lstm").state_dict())
    assert all(torch.equal(a, b) for a, b in zip(models[0].values(), models[1].values(), strict=True))


def test_listed_models_exist_and_match_the_pattern():
    names = list_models("*resnet29*")
    assert {f"cifar_resnet29{a}" for a in ATTENTIONS} <= set(names)
    assert all(blueprint(ModelSpec(name=name)).spec.name == name for name in list_models())
    smallest = [backbone.listed[0] for backbone in BACKBONES]
    with torch.device("meta"):
        for name in (f"{each}{a}" for each in smallest for a in ("", "_se", "_dia_eca", "_dia_lstm")):
            assert create_model(name).spec.name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar_resnet30", "must be 9n \\+ 2, from 11 to 1999; nearest: cifar_resnet29 or cifar_resnet38"),
        ("cifar_resnet2", "to 1999; nearest: cifar_resnet11"),
        ("cifar_resnet9999", "to 1999; nearest: cifar_resnet1991"),
        ("cifar_resnet29_spaa", "did you mean 'cifar_resnet29_spa'"),
        ("cifar_resnet29_dia_lstmm", "did you mean 'cifar_resnet29_dia_lstm'"),
        ("resnet", "unknown model 'resnet'"),
        ("", "unknown model ''"),
    ],
)
def test_unknown_models_are_named_with_the_nearest(name, message):
    with pytest.raises(ModelInputError, match=message) as caught:
        create_model(name)
    assert caught.value.argument == "model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reductoin": 4}, "unknown option 'reductoin'; did you mean 'reduction'"),
        ({"reduction": 7}, "reduction 7 must divide the 64 channels"),
        ({"reduction": 0}, "reduction 0 must divide"),
        ({"reduction": "4"}, "reduction must be a whole number, not '4'"),
        ({"reduction": True}, "reduction must be a whole number, not True"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ModelInputError, match=message):
        create_model("cifar_resnet29_se", **options)


def test_a_plain_network_has_no_options_of_attention():
    known = "attention_blocks, attention_folded, attention_stages"
    with pytest.raises(ModelInputError, match=f"unknown option 'reduction'.*: {known}"):
        create_model("cifar_resnet29", reduction=4)
