"""Networks that predict noise are trained, resumed, and generate images."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

import cli.common.main
import cli.train
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.data import open_data
from dia_models.generation.diffusion import log_alpha, sigma
from dia_models.generation.sampling import NotFiniteImagesError, generate, grid, to_pixels
from dia_models.generation.training import NoisePrediction, NoisyBatches, noise_errors
from dia_models.runs.result import RunResult
from dia_models.runs.run import fit
from dia_models.training.batches import Batches
from dia_models.training.config import RunConfig
from dia_models.training.recipe import load_recipe

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
SMALL = {"epochs": 2, "batch_size": 32, "augment": "none", "training_images": 64, "ema": 0.9, "validation": 0.1}
SCORED = {"frechet_features": "digits-resnet56-se", "frechet_images": 20}


def config(model="uvit_tiny_dia_lstm", data="digits", **changes):
    recipe = load_recipe("paper_uvit", **{**SMALL, **SCORED, **changes})
    return RunConfig(model=model, data=data, recipe_name="paper_uvit", recipe=recipe, seed=1)


class Cut(Callback):
    """A power cut in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise KeyError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    return fit(config(), directory, CPU)


def test_the_paper_recipe_takes_the_published_number_of_steps():
    recipe = load_recipe("paper_uvit")
    steps = recipe.epochs * -(-50_000 // recipe.batch_size)
    assert 500_000 <= steps < 500_391
    assert recipe.warmup * steps == pytest.approx(2_500, rel=0.001)
    assert (recipe.momentum, recipe.weight_decay, recipe.learning_rate) == (0.99, 0.03, 2e-4)


def test_each_image_of_a_batch_has_its_own_noise_and_time_which_depend_on_the_seed_alone():
    images = open_data("digits", "train").take(torch.arange(40))
    first, again, other = (list(NoisyBatches(Batches(images, 16, seed))) for seed in (5, 5, 6))
    assert [len(times) for _, times, _ in first] == [16, 16, 8]
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(first[0][2], other[0][2])
    times = torch.cat([times for _, times, _ in first])
    noise = torch.cat([noise for _, _, noise in first])
    assert len(times.unique()) == 40
    assert 0 <= times.min() < 0.2 < 0.8 < times.max() <= 1
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)


def test_the_error_is_that_of_the_predicted_noise():
    images, noise, times = torch.rand(3, 1, 8, 8), torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 1.0])

    def knows(x, at):
        assert torch.equal(at, 999 * times)
        alpha, rest = (f(times)[:, None, None, None] for f in (lambda t: log_alpha(t).exp(), sigma))
        return (x - alpha * images) / rest

    torch.testing.assert_close(noise_errors(knows, images, times, noise), torch.zeros(3), rtol=0, atol=1e-6)
    errors = noise_errors(lambda x, at: torch.zeros_like(x), images, times, noise)
    torch.testing.assert_close(errors, noise.square().mean((1, 2, 3)))


def test_a_run_gives_its_loss_and_distance(run):
    assert run.outcome == "finished"
    assert set(run.last.scores) == {"test_loss", "test_frechet"}
    assert 0 < run.last.scores["test_loss"] < 1.5
    details = run.last.details["frechet"]
    assert (details["images"], details["reference_images"], details["steps"]) == (20, 1437, 50)
    assert 0 < details["of_test_images"] < run.last.scores["test_frechet"]
    assert details["features_sha256"] == Checkpoint.read("digits-resnet56-se").sha256
    document = json.loads((run.directory / "result.json").read_text())
    assert document["last"]["frechet"] == details
    assert RunResult.read(run.directory, run.config) == run
    info = Checkpoint.read(run.directory / "model.safetensors").info
    assert (info.classes, info.model.options["image_size"]) == ((), 8)
    assert info.metrics == run.last.scores
    assert info.preprocessing(torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)).flatten().tolist() == [-1, 1]
    assert run.best is not None
    assert (run.directory / "metrics.csv").read_text().startswith("epoch,learning_rate,val_loss,train_loss,seconds")


def test_an_interrupted_run_ends_with_the_same_bytes(run, tmp_path):
    with pytest.raises(KeyError):
        fit(config(), tmp_path / "cut", CPU, callbacks=(Cut(),))
    fit(config(), tmp_path / "cut", CPU, resume=True)
    for name in ("model.safetensors", "best.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (run.directory / name).read_bytes()


def test_a_loss_that_is_not_finite_is_a_result(tmp_path):
    result = fit(config(learning_rate=1e30, ema=0), tmp_path / "run", CPU)
    assert result.outcome == "nan"
    document = json.loads((tmp_path / "run" / "result.json").read_text())
    assert document["last"] == {"test_loss": None, "test_frechet": None}


def test_training_reduces_the_loss(tmp_path):
    changes = {"validation": 0, "training_images": 512, "learning_rate": 1e-3, "warmup": 0, "epochs": 4}
    fit(config(**changes, frechet_features=None, frechet_images=None), tmp_path / "run", CPU)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train_loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frechet_features": None}, "frechet_images needs frechet_features: a classifier's checkpoint or inception"),
        ({"frechet_features": "digits-resnet56"}, "did you mean 'digits-resnet56-se'"),
        ({"frechet_features": "inception"}, "inception needs"),
    ],
)
def test_what_cannot_be_scored_is_said_before_training(tmp_path, changes, said):
    with pytest.raises(ModelInputError, match=said):
        fit(config(**changes), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_images_must_be_square():
    images = open_data("digits", "train")
    flat = type(images)(images.pixels[:, :4], images.labels, images.classes)
    with pytest.raises(ModelInputError, match="digits has images of 4x8; give square ones"):
        NoisePrediction.plan(config(), (flat, flat)).build()


def test_an_image_depends_on_its_seed_and_number_only():
    model = create_model("uvit_tiny", in_channels=1)
    shape = (1, 8, 8)
    whole = torch.cat(list(generate(model, shape, range(6), CPU, steps=4, seed=3)))
    parts = [*generate(model, shape, range(2), CPU, steps=4, seed=3)]
    parts += generate(model, shape, range(2, 6), CPU, steps=4, seed=3, batch_size=3)
    assert (whole.int() - torch.cat(parts).int()).abs().max() <= 1  # sums in another order
    assert not torch.equal(whole[0], whole[1])
    other = torch.cat(list(generate(model, shape, range(6), CPU, steps=4, seed=4)))
    assert not torch.equal(whole, other)


def test_noise_that_is_not_finite_makes_no_images():
    with pytest.raises(NotFiniteImagesError, match="not finite"):
        list(generate(Broken(), (1, 8, 8), range(2), CPU, steps=2))


class Broken(torch.nn.Module):
    """Predicts nothing."""

    def forward(self, images, times):
        return images / 0


def test_bytes_and_grids_by_hand():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    pixels = to_pixels(images)
    assert pixels.flatten().tolist() == [0, 0, 128, 255]
    picture = grid(pixels[1:], 2)
    assert picture.size == (4, 4)
    assert [picture.getpixel(place) for place in ((0, 0), (2, 0), (0, 2), (2, 2))] == [0, 128, 255, 0]


def command(*arguments):
    return cli.common.main.run(cli.train.app, ["generate", *map(str, arguments)])


def test_the_command_writes_pictures_a_grid_and_a_manifest(run, tmp_path, capsys):
    ckpt, out = run.directory / "model.safetensors", tmp_path / "out"
    arguments = ("--ckpt", ckpt, "--images", 5, "--out", out, "--steps", 3, "--features", "digits-resnet56-se")
    assert command(*arguments, "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    assert "5 images of run, 3 steps each" in printed
    assert "to 1437 training images of digits, in the features of digits-resnet56-se" in printed
    assert "FID" not in printed
    names = ["000000.png", "000001.png", "000002.png", "000003.png", "000004.png"]
    assert sorted(p.name for p in out.iterdir()) == [*names, "generate.json", "grid.png", "manifest.json"]
    assert {picture_size(out / name) for name in names} == {(8, 8)}
    assert picture_size(out / "grid.png")[0] == 8 * 9 * 8
    document = json.loads((out / "generate.json").read_text())
    assert (document["schema"], document["images"], document["frechet"]["images"]) == ("dia.generate/1", 5, 5)
    assert json.loads((out / "manifest.json").read_text())["files"].keys() == {*names, "generate.json", "grid.png"}
    before = (out / "grid.png").read_bytes()
    assert command(*arguments) == 1
    assert "out exists; choose another folder" in capsys.readouterr().err
    assert command(*arguments[:4], "--out", tmp_path / "again", "--steps", 3, "--json", "--batch-size", 2) == 0
    assert json.loads(capsys.readouterr().out)["frechet"] is None
    assert (tmp_path / "again" / "grid.png").read_bytes() == before


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


def test_what_generates_no_images(tmp_path, capsys):
    assert command("--ckpt", "digits-resnet56-se", "--out", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "--ckpt" in told
    assert "is a network for classification; one for noise prediction is needed here" in told
    assert not (tmp_path / "out").exists()
