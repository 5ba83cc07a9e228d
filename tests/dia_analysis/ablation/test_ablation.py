"""Planted networks: what an ablation must find is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from dia_analysis import AnalysisInputError, measure_ablation
from dia_analysis.ablation.findings import findings
from dia_analysis.ablation.swap_picture import draw_swaps, swap_scores
from dia_analysis.probes.replacing import replacing
from dia_analysis.statistics.intervals import Estimate
from dia_models import create_model

pytestmark = pytest.mark.numeric
CLASSES = 2


class Deciding(nn.Module):
    """Images (3, 4, 4) of noise around 1; the sign of the mean of channel 0 - 1 is the class.

    The first layer's gate alone passes it on: the features it multiplies are 1. The second layer's gate is made from
    the input too, and multiplies features that the answer does not use.
    """

    def __init__(self, functional=False):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.functional, self.gate1, self.gate2 = functional, nn.Sigmoid(), nn.Sigmoid()
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[40.0, 0, 0], [-40.0, 0, 0], [0, 0, 1.0]]))
            self.first.bias.copy_(torch.tensor([-40.0, 40.0, 0]))

    def forward(self, x):
        pooled = x.mean((2, 3))
        squash = (torch.sigmoid, torch.sigmoid) if self.functional else (self.gate1, self.gate2)
        flat = x * 0 + 1
        passed = flat * squash[0](self.first(pooled))[:, :, None, None]
        unused = x * squash[1](self.second(pooled))[:, :, None, None]
        return passed.mean((2, 3))[:, :2] + 0 * unused.mean((2, 3))[:, :2]


def planted(count, seed=0):
    """Images, and the classes that their first channel decides."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = 1 + 0.1 * torch.randn(count, 3, 4, 4, generator=generator)
    images[:, 0] += (1 - 2 * labels)[:, None, None] * 0.5
    return images, labels


def found(result, what, by, effect="total"):
    network = result.networks[0]
    [one] = [
        each.scores
        for each in network.ablations
        if network.what(each) == what and (each.replaced_by, each.effect) == (by, effect)
    ]
    return one


@pytest.mark.parametrize("functional", [False, True])
def test_a_gate_that_decides_the_class_matters_and_another_does_not(functional):
    model = Deciding(functional)
    images, labels = planted(60)
    result = measure_ablation(model, [(images, labels)], planted(40, 1), layers=["each"])
    network = result.networks[0]
    assert network.accuracy.value == 1
    assert [layer.stage for layer in network.layers] == [1, 1]
    for effect in ("total", "direct"):
        for by in ("mean", "constant", "one"):  # each predicts one class for all
            assert found(result, "stage 1, layer 1", by, effect).accuracy.value == 0.5
            assert found(result, "stage 1, layer 1", by, effect).changed.value == 0.5
        for by in ("mean", "resample", "resample-half", "constant", "one"):
            idle = found(result, "stage 1, layer 2", by, effect)
            assert (idle.accuracy.value, idle.changed.value, idle.kl.value) == (1, 0, 0)
            assert idle.loss_change.value == 0
    resampled = found(result, "stage 1, layer 1", "resample")
    assert 0.3 < resampled.accuracy.value < 0.7  # other images are of either class
    assert "uses its maps' dependence" not in result.summary()  # no target of several layers was asked for
    assert "Stage 1, layer 1 by its mean: accuracy -50.0 points" in result.summary()


def test_means_are_those_of_the_fit_images_and_changes_are_measured_against_the_maps():
    model = Deciding().requires_grad_(False)
    images, labels = planted(30)
    others, _ = planted(20, 1)
    result = measure_ablation(model, (images, labels), others, replace_by=["mean", "resample", "resample-half"])
    gates = [
        torch.sigmoid(layer(x.mean((2, 3)))).double() for x in (images, others) for layer in (model.first, model.second)
    ]
    own, fitted = gates[:2], gates[2:]
    change = sum(float((m - f.mean(0)).square().sum()) for m, f in zip(own, fitted, strict=True))
    expected = np.sqrt(change / sum(float(m.square().sum()) for m in own))
    changes = {one.replaced_by: one.map_change for one in result.networks[0].ablations}
    assert changes["mean"] == pytest.approx(expected, rel=1e-5)
    assert changes["resample-half"] == pytest.approx(changes["resample"] / np.sqrt(2), rel=1e-5)


def test_numbers_equal_those_of_hooks():
    """The mean put out by the gate's module, where nothing else reads it, does what the replaced operand does."""
    model = create_model("cifar_resnet11_se", num_classes=3).eval()
    images, others, labels = torch.randn(12, 3, 8, 8), torch.randn(9, 3, 8, 8), torch.arange(12) % 3
    result = measure_ablation(
        model, [(images[:5], labels[:5]), (images[5:], labels[5:])], [others], replace_by=["mean"]
    )
    gates = [module for name, module in model.named_modules() if name.endswith("gate")]
    means = {}
    hooks = [g.register_forward_hook(lambda m, _, out: means.__setitem__(m, out.mean(0, keepdim=True))) for g in gates]
    with torch.no_grad():
        model(others)
        for hook in hooks:
            hook.remove()
        expected = model(images)
        hooks = [g.register_forward_hook(lambda m, _, out: means[m].expand_as(out)) for g in gates]
        ablated = model(images)
    for hook in hooks:
        hook.remove()
    before, after = expected.double().log_softmax(1), ablated.double().log_softmax(1)
    one = found(result, "all", "mean")
    assert one.loss.value == pytest.approx(float(F.nll_loss(after, labels)), abs=1e-6)
    assert one.loss_change.value == pytest.approx(
        float(F.nll_loss(after, labels) - F.nll_loss(before, labels)), abs=1e-6
    )
    assert one.kl.value == pytest.approx(float((before.exp() * (before - after)).sum(1).mean()), abs=1e-6)
    assert one.accuracy.value == pytest.approx(float((ablated.argmax(1) == labels).double().mean()))


def test_calls_of_a_shared_module_are_ablated_one_by_one():
    model = create_model("cifar_resnet20_dia_lstm", num_classes=3).eval()
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    result = measure_ablation(model, (images, labels), layers=["1.1", "1.2"], replace_by=["one"])
    network = result.networks[0]
    assert [(layer.stage, layer.number, layer.call) for layer in network.layers[:2]] == [(1, 1, 0), (1, 2, 1)]
    first, second = (found(result, f"stage 1, layer {n}", "one").kl.value for n in (1, 2))
    assert first > 0 < second
    assert first != second
    # a later layer of the network changes with the first in all, not directly
    assert (
        found(result, "stage 1, layer 1", "one").kl.value != found(result, "stage 1, layer 1", "one", "direct").kl.value
    )


class Attending(nn.Module):
    """Self-attention of one head over four tokens, fused or not; a causal mask if asked."""

    def __init__(self, fused=False, causal=False):
        super().__init__()
        self.fused, self.causal = fused, causal
        self.patch, self.qkv, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 1, 4).permute(2, 0, 3, 1, 4)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.mT * 0.5
            if self.causal:
                scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
            x = scores.softmax(-1) @ v
        return self.head(x[:, 0].mean(1))


@pytest.mark.parametrize("causal", [False, True])
def test_constant_self_attention_is_even_over_the_keys_that_are_used(causal):
    fused, plain = Attending(True, causal), Attending(False, causal)
    plain.load_state_dict(fused.state_dict())
    images, labels = planted(10)
    results = [measure_ablation(m, (images, labels), images + 0.1) for m in (fused, plain)]
    kinds = {one.replaced_by for one in results[0].networks[0].ablations}
    assert kinds == {"mean", "resample", "resample-half", "constant"}  # "one" is no self-attention
    for by in kinds:
        first, second = (found(result, "stage 1", by).loss.value for result in results)
        assert first == pytest.approx(second, abs=1e-5)
    with torch.no_grad():
        x = plain.patch(images).flatten(2).mT
        v = plain.qkv(x)[..., 8:]
        weights = torch.ones(4, 4).tril() if causal else torch.ones(4, 4)
        outputs = plain.head((weights / weights.sum(1, keepdim=True) @ v).mean(1))
    assert found(results[1], "stage 1", "constant").loss.value == pytest.approx(
        float(F.cross_entropy(outputs.double(), labels)), abs=1e-5
    )


def test_a_static_gate_is_called_a_fixed_scaling():
    model = Deciding()
    with torch.no_grad():
        model.second.weight.zero_()
    model.forward = lambda x: _static(model, x)
    images, labels = planted(400)
    result = measure_ablation(model, (images, labels), planted(50, 1)[0], replace_by=["mean"])
    text = result.summary()
    assert "changes 0.0 % of the predictions (accuracy 100.0 -> 100.0)" in text
    assert "mostly a fixed scaling of channels" in text


def _static(model, x):
    gate = torch.sigmoid(model.second(x.mean((2, 3))))[:, :, None, None]
    y = x * gate
    return torch.stack([y[:, 0].mean((1, 2)) - gate[:, 0, 0, 0], gate[:, 0, 0, 0] - y[:, 0].mean((1, 2))], 1)


def test_without_labels_and_at_chance_nothing_is_said():
    images, labels = planted(20)
    unlabelled = measure_ablation(Deciding(), images, images)
    assert unlabelled.to_dict()["networks"][0]["accuracy"] is None
    assert "No finding: without labels" in unlabelled.summary()
    assert unlabelled.networks[0].ablations[0].scores.changed.value > 0
    chance = measure_ablation(Deciding(), (images, labels.roll(10).flip(0)), images)
    assert "No finding: accuracy" in chance.summary()


def test_batch_norms_get_new_statistics_and_the_network_is_left_as_it_was():
    model = create_model("cifar_resnet11_se", num_classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 3
    results = [
        measure_ablation(model, (images, labels), images + 1, replace_by=["one", "resample"], recalibrate_bn=on)
        for on in (False, True)
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    plain, new = (found(result, "all", "one") for result in results)
    assert plain.loss.value != new.loss.value
    assert results[0].networks[0].loss.value != results[1].networks[0].loss.value


def test_half_of_the_images_give_the_means_where_there_are_no_others():
    images, labels = planted(21)
    model = Deciding()
    one = measure_ablation(model, (images, labels), replace_by=["mean"]).networks[0]
    assert (one.num_images, one.fit_images) == (10, 11)
    given = measure_ablation(model, (images[1::2], labels[1::2]), images[::2], replace_by=["mean"]).networks[0]
    assert [a.map_change for a in one.ablations] == [a.map_change for a in given.ablations]


def test_donors_are_other_images_and_the_same_for_all_layers():
    """The gates' first element is the image's number: what a layer is given says whose it is."""
    from dia_analysis.ablation.donors import Donors

    maps = [torch.arange(11.0)[:, None], torch.arange(11.0)[:, None] + 100]
    for largest in (2**20, 1):
        donors = Donors(0, largest)
        for first, last in ((0, 4), (4, 11)):
            donors.add([part[first:last] for part in maps])
        donors.draw()
        assert donors.within_batches == (largest == 1)
        seen = []
        for first, last in ((0, 4), (4, 11)):
            draws = donors.of(first, [part[first:last] for part in maps])
            assert len(draws) == 5
            for one, other in draws:
                assert torch.equal(one + 100, other)
                assert not (one[:, 0] == torch.arange(first, last)).any()
            seen.append(torch.cat([one for one, _ in draws], 1))
        each = torch.cat(seen).T  # (draw, image)
        assert all(torch.equal(order.sort()[0], torch.arange(11.0)) for order in each)
        assert len({tuple(order.tolist()) for order in each}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replace_by": ["median"]}, "'median' given; give some of mean, resample"),
        ({"layers": ["7"]}, r"'7' given; the stages, and how many layers each has, are 1 \(2\); give 'all'"),
        ({"layers": ["1.9"]}, "'1.9' given"),
        ({"batches": torch.ones(1, 3, 4, 4)}, "1 image given; an ablation compares images: give at least 2"),
        ({"batches": (torch.ones(2, 3, 4, 4), torch.tensor([0, 5]))}, "an image has class 5, the network knows 2"),
        ({"model": nn.Conv2d(3, 2, 1)}, "uses no attention"),
        ({"batches": torch.full((4, 3, 4, 4), torch.nan)}, "answers are not finite"),
        ({"fit_batches": torch.full((4, 3, 4, 4), torch.nan)}, "is not finite .* on any image"),
        ({"recalibrate_bn": True}, "no batch norm"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_measured_is_said(change, message):
    images, labels = planted(4)
    given = {"model": Deciding(), "batches": (images, labels), "fit_batches": images} | change
    with pytest.raises(AnalysisInputError, match=message):
        measure_ablation(**given)


def test_images_without_a_finite_answer_are_left_out_and_counted():
    images, labels = planted(10)
    images[3] = torch.nan
    network = measure_ablation(Deciding(), (images, labels), planted(6, 1)[0]).networks[0]
    assert network.num_images == 9
    assert "1 image left out: the untouched network's answer is not finite." in network.text()


class Twins(nn.Module):
    """Two blocks of one stage whose gates see the same pooled image, and are the same but for `apart`."""

    def __init__(self, apart=0.0):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, CLASSES)
        self.fc = nn.ModuleList(nn.Linear(3, 4) for _ in range(2))
        self.fc[1].load_state_dict(self.fc[0].state_dict())
        with torch.no_grad():
            self.fc[1].bias += apart

    def forward(self, image):
        pooled, x = image.mean((2, 3)), self.stem(image)
        for conv, fc in zip(self.convs, self.fc, strict=True):
            x = x + conv(x) * torch.sigmoid(fc(pooled))[:, :, None, None]
        return self.head(x.mean((2, 3)))


def test_swapping_equal_maps_changes_nothing_to_the_bit_and_scores_one():
    images, labels = planted(40)
    network = measure_ablation(Twins(), (images, labels), images + 0.1, replace_by=["mean"]).networks[0]
    raw = [one for one in network.swaps if one.replaced_by == "layer"]
    assert [(network.layers[one.layers[0]].number, one.by_layer) for one in raw] == [(1, 2), (2, 1)]
    assert all(one.map_change == one.scores.kl.value == one.scores.loss_change.value == 0 for one in raw)
    other = [one for one in network.swaps if one.replaced_by == "layer-matched-other-image"]
    assert all(one.scores.kl.value > 0 for one in other)
    assert "Layer swap, accuracy in %" in network.text()
    assert {row["by_layer"] for row in network.to_dict()["ablations"]} == {None, 1, 2}


def test_matched_maps_have_the_mean_and_the_spread_of_the_layer_that_they_replace():
    images, labels = planted(40)
    network = measure_ablation(Twins(2.0), (images, labels), images, replace_by=["mean"]).networks[0]
    found = {(one.layers[0], one.replaced_by): one for one in network.swaps}
    assert found[0, "layer-matched"].map_change < 0.5 * found[0, "layer"].map_change
    scored = [one.swap_score for one in network.swaps if one.replaced_by == "layer-matched"]
    assert all(score is not None for score in scored)


def test_the_layer_swap_is_drawn_and_said():
    images, labels = planted(40)
    result = measure_ablation(Twins(2.0), (images, labels), images, replace_by=["mean"])
    network = result.networks[0]
    scores = {(0, 1): Estimate(0.25, 0.2, 0.3, 40), (1, 0): Estimate(np.nan, images=40)}
    swaps = [
        replace(one, swap_score=scores[one.layers[0], one.by_layer - 1]) if one.replaced_by == "layer-matched" else one
        for one in network.swaps
    ]
    known = replace(network, swaps=tuple(swaps), accuracy=Estimate(0.9, 0.8, 1.0, 40), most_frequent=0.3)
    np.testing.assert_array_equal(swap_scores(known), [[np.nan, 0.25], [np.nan, np.nan]])
    said = " ".join(findings(known))
    assert "Layer swap, stage 1: another layer's matched map closes 0.25 of the gap" in said
    assert "median of 1 ordered pair (0.25 to 0.25), undefined for 1 more" in said
    assert "not whether one module can learn" in said
    assert len(replace(result, networks=(known,)).panels()) == 2
    ax = Figure().subplots()
    draw_swaps(known, ax)
    assert [text.get_text() for text in ax.texts] == ["0.2"]
    without = replace(known, swaps=tuple(one for one in swaps if one.by_layer == 1))
    assert len(replace(result, networks=(without,)).panels()) == 1
    assert "not whether one module can learn" not in " ".join(findings(without))


def test_the_score_of_a_swap_by_hand():
    from dia_analysis.ablation.swapping import swap_score

    permuted, matched, untouched = np.array([3.0, 5.0, 4.0]), np.array([2.0, 3.5, 2.5]), np.array([1.0, 3.0, 2.0])
    assert swap_score(permuted, matched, untouched).value == pytest.approx((1 + 1.5 + 1.5) / 6)
    assert swap_score(permuted, untouched, untouched).value == 1
    assert swap_score(permuted, permuted, untouched).value == 0
    assert np.isnan(swap_score(untouched, matched, untouched).value)  # there is no gap


def test_layers_without_common_channels_are_not_swapped():
    model = create_model("cifar_resnet20_se", num_classes=3)
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    many = measure_ablation(model, (images, labels), images, replace_by=["mean"], layers=["all"])
    assert "The layer swap was not run: it takes 60 passes; ask for it (swap)." in many.summary()
    apart = measure_ablation(Deciding(), (images[:, :, :4, :4], labels % 2), images[:, :, :4, :4], replace_by=["mean"])
    assert "Stage 1: layer swap is undefined: channel numbers have no common meaning." in apart.summary()


def test_images_of_one_patient_count_together():
    model = Deciding()
    images, labels = planted(40)
    labels[::4] = 1 - labels[::4]  # some are answered wrongly
    alone = measure_ablation(model, (images, labels), planted(20, 1), replace_by=["mean"]).networks[0]
    whose = [f"patient {i}" for i in range(40) for _ in range(4)]
    four = (images.repeat_interleave(4, 0), labels.repeat_interleave(4))
    result = measure_ablation(model, four, planted(20, 1), replace_by=["mean"], patients=whose).networks[0]
    for one, other in ((alone.accuracy, result.accuracy), (alone.loss, result.loss)):
        assert other.value == pytest.approx(one.value, rel=1e-5)
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.03)  # 39 / 40 against 159 / 160
    half = measure_ablation(model, four, replace_by=["mean"], patients=whose).networks[0]
    assert half.num_images == 80
    assert "a patient with several images may be among these" in half.notes[-1]
    with pytest.raises(AnalysisInputError, match="3 names for 160 images"):
        measure_ablation(model, four, planted(20, 1), replace_by=["mean"], patients=whose[:3])


def test_the_document_has_the_fields_that_others_rely_on():
    images, labels = planted(12)
    result = measure_ablation(Deciding(), (images, labels), images, layers=["all", "1.2"], name="planted")
    document = result.to_dict()
    assert document["schema"] == "dia.ablation/1"
    [network] = document["networks"]
    assert (network["name"], network["images"], network["accuracy"]) == ("planted", 12, 1.0)
    first = network["ablations"][0]
    assert {
        "stage",
        "layers",
        "replaced_by",
        "by_layer",
        "accuracy",
        "loss",
        "changed",
        "kl",
        "accuracy_interval",
    } <= set(first)
    assert (first["stage"], first["layers"], first["replaced_by"], first["draws"]) == (None, [1, 2], "mean", 1)
    assert network["ablations"][-1]["layers"] == [2]
    frame = result.to_dataframe()
    assert len(frame) == len(network["ablations"])
    assert result.to_xarray()["accuracy"].shape == (len(frame),)


def test_the_picture_shows_every_target_and_replacement(tmp_path):
    images, labels = planted(12)
    result = measure_ablation(Deciding(), (images, labels), images, layers=["all", "1.1"])
    ax = result.plot()
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "mean",
        "resample",
        "resample-half",
        "constant",
        "one",
    ]
    assert {"all", "stage 1, layer 1", "untouched"} == {text.get_text() for text in ax.get_legend().get_texts()}
    folder = result.save(tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "ablation.json",
        "ablation.nc",
        "ablation.png",
        "ablation.pdf",
        "manifest.json",
    }


@pytest.mark.parametrize("state", [False, True])
def test_the_next_step_of_an_lstm_reads_its_own_state_unless_asked(state):
    model = create_model("cifar_resnet20_dia_lstm", num_classes=3).eval()
    cell = next(module for module in model.modules() if hasattr(module, "hidden_gates"))
    images, read = torch.randn(2, 3, 8, 8), []
    first = {}

    def ones(point, value):
        place = (point.name, point.call)
        return torch.ones_like(value) if first.setdefault("place", place) == place else None

    with torch.no_grad(), cell.hidden_gates.register_forward_pre_hook(lambda _, args: read.append(args[0].clone())):
        model(images)
        own = read.copy()
        with replacing(model, ones, state=state):
            model(images)
            read.clear()
            model(images)
    assert torch.equal(read[0], own[0])  # the step that made the map
    if state:
        assert (read[1] == 1).all()
    else:
        assert torch.equal(read[1], own[1])
    result = measure_ablation(
        model, (images, torch.arange(2)), images, layers=["1.1"], replace_by=["one"], swap=False, state=state
    )
    assert result.to_dict()["networks"][0]["state"] is state
