"""Gradients during a training: the same as measured by themselves, the training as without, where numbers go."""

import csv
from math import isnan

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from dia_analysis import AnalysisInputError, GradientMonitor, network_gradients

pytestmark = pytest.mark.numeric


class Small(nn.Module):
    """Two stages of one block, with batch norm and dropout, in a wrapper."""

    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.body = nn.ModuleDict({"first": first, "second": second})
        self.head, self.dropped = nn.Linear(6, 3), 0.2

    def forward(self, x):
        x = self.body["second"](self.body["first"](x))
        return self.head(F.dropout(x.mean((2, 3)), self.dropped, self.training))


def network():
    torch.manual_seed(0)
    return Small()


def batches(count):
    random = torch.Generator().manual_seed(1)
    return [(torch.randn(5, 3, 8, 8, generator=random), torch.arange(5) % 3) for _ in range(count)]


def train(model, steps=4, rate=0.1, scale=1.0, called=None):
    called = model if called is None else called
    optimizer = torch.optim.SGD(model.parameters(), rate)
    torch.manual_seed(2)
    for images, labels in batches(steps):
        optimizer.zero_grad()
        (scale * F.cross_entropy(called(images), labels, reduction="sum")).backward()
        optimizer.step()
    return model.state_dict()


def hooks_of(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def assert_same(found, expected):
    assert [(p.module, p.shape) for p in found] == [(p.module, p.shape) for p in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.magnitudes.mean == pytest.approx(other.magnitudes.mean, rel=1e-6)
        assert (one.magnitudes.histogram == other.magnitudes.histogram).all()
        assert one.output_rms == pytest.approx(other.output_rms, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_it_sees_what_measure_gradients_measures(scale):
    model, monitor = network(), GradientMonitor()
    model.dropped = 0.0
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale > 1 else None
    if scaler is not None:
        scaler.scale(torch.ones(()))  # which makes its scale known
    with monitor.watch(model, scaler):
        train(model, steps=2, rate=0.0, scale=scale)
    expected = network_gradients(model, batches(2)[1:])
    assert [stage.module for stage in expected.stages] == ["body.first", "body.second"]
    assert_same(monitor.latest, expected.stages)


def test_a_training_is_the_same_to_the_bit_and_no_hook_stays():
    plain, watched = network(), network()
    before = hooks_of(watched)
    with GradientMonitor(every=2).watch(watched):
        end = train(watched)
    assert hooks_of(watched) == before
    assert all(torch.equal(a, b) for a, b in zip(train(plain).values(), end.values(), strict=True))


def logged(model, every, steps, **how):
    rows = []
    monitor = GradientMonitor(every=every, log=lambda numbers, step: rows.append((step, numbers)))
    with monitor.watch(model):
        train(model, steps, **how)
    return rows


def test_the_second_pass_and_then_every_so_many_are_measured():
    rows = logged(network(), every=3, steps=8)
    assert [step for step, _ in rows] == [1, 4, 7]
    assert set(rows[0][1]) == {"gradients/decades"} | {
        f"gradients/stage{stage}/{name}"
        for stage in (1, 2)
        for name in ("mean_abs", "std_abs", "median_abs", "q05_abs", "q95_abs", "zeros", "nonfinite", "relative")
    }


def test_passes_that_do_not_train_do_not_count():
    model, steps = network(), []
    with GradientMonitor(every=1, log=lambda _, step: steps.append(step)).watch(model):
        for images, labels in batches(3):
            model.eval()(images)
            with torch.no_grad():
                model.train()(images)
            F.cross_entropy(model(images), labels).backward()
    assert steps == [1, 2]


def test_several_passes_before_one_backward_pass():
    model, steps = network(), []
    with GradientMonitor(every=2, log=lambda _, step: steps.append(step)).watch(model):
        for images, labels in batches(3):
            (F.cross_entropy(model(images), labels) + F.cross_entropy(model(images.flip(3)), labels)).backward()
    assert steps == [1, 3, 5]


def test_a_compiled_network_is_measured_uncompiled():
    model = network()
    expected = logged(network(), 2, 4)
    rows = []
    compiled = torch.compile(model, backend="eager")
    with GradientMonitor(every=2, log=lambda numbers, step: rows.append((step, numbers))).watch(compiled):
        train(model, called=compiled)
    assert rows == expected


def test_an_error_leaves_no_hook():
    model = network()
    before = hooks_of(model)
    with pytest.raises(RuntimeError), GradientMonitor().watch(model):
        model(torch.zeros(2, 5, 8, 8))
    assert hooks_of(model) == before


def test_an_output_without_a_gradient_is_left_out_with_a_warning():
    model, monitor = network(), GradientMonitor()

    def parted():
        with monitor.watch(model):
            for images, labels in batches(2):
                F.cross_entropy(model(images), labels).backward()
                model.body["first"].register_forward_hook(lambda _, __, output: output.detach())

    with pytest.warns(UserWarning, match="no gradient came back to body.first"):
        parted()
    assert [point.module for point in monitor.latest] == ["body.second"]


class Lit(lightning.LightningModule):
    """Calls the network inside, not itself."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, number):
        return F.cross_entropy(self.net(batch[0]), batch[1], reduction="sum")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_it_is_a_callback_of_lightning(tmp_path):
    plain, monitor, model = network(), GradientMonitor(every=2), Lit()
    plain.dropped = model.net.dropped = 0.0  # Lightning draws random numbers of its own
    expected = logged(plain, 2, 4)
    before = hooks_of(model)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[monitor], logger=CSVLogger(tmp_path, "", ""),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    torch.manual_seed(2)
    trainer.fit(model, torch.utils.data.DataLoader(batches(4), batch_size=None))
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [step for step, _ in expected] == [1, 3]
    assert hooks_of(model) == before
    for row, (_, numbers) in zip(rows, expected, strict=True):
        assert {name: float(row[name]) for name in numbers} == pytest.approx(numbers, rel=1e-5)


class Writer:
    """TensorBoard's, as far as it is used."""

    def __init__(self):
        self.seen = []

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))


class Run:
    """One of wandb, as far as it is used."""

    def __init__(self):
        self.seen = []

    def log(self, numbers):
        self.seen.append(numbers)


def test_where_numbers_go(tmp_path):
    path, writer, run = tmp_path / "gradients.csv", Writer(), Run()
    for log in (path, writer, run):
        with GradientMonitor(every=2, log=log).watch(model := network()):
            train(model)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "3"]
    assert not isnan(float(rows[0]["gradients/decades"]))
    of_writer = [(n, v) for n, v, step in writer.seen if step == 3]
    of_run = {k: v for k, v in run.seen[1].items() if k != "gradients/step"}
    assert dict(of_writer) == of_run == {k: float(v) for k, v in rows[1].items() if k != "step"}
    assert run.seen[1]["gradients/step"] == 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"every": 0}, "0 given; accepted: a number from 1"),
        ({"log": 3}, "a int given; accepted: TensorBoard's SummaryWriter"),
        ({"log": "out.txt"}, r"out.txt does not end in .csv"),
    ],
)
def test_what_cannot_be_used(how, message):
    with pytest.raises(AnalysisInputError, match=message):
        GradientMonitor(**how)


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(AnalysisInputError, match="exists; name another file"):
        GradientMonitor(log=tmp_path / "out.csv")
