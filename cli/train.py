"""dia-train: train the networks that dia-analyze looks into."""

from pathlib import Path
from typing import Annotated

import typer

from cli import runs
from cli.common import options as o
from cli.common.commands import command, program
from cli.common.main import start
from cli.common.options import AllImages, option
from cli.common.publish import Out
from cli.runs.fit import FitOptions, fit_or_resume
from cli.runs.generate import GenerateOptions, write_images
from cli.runs.sweep import SweepOptions, run_sweep

SWEEP = "A name that dia-train recipes lists, or a TOML file."
app = program("dia-train", "Train and test attention networks. Add --debug to any command for a traceback.")


@command(app, "fit --model cifar_resnet20_se --data digits --set epochs=2 --out run", "fit --resume --out run")
def fit(given: FitOptions) -> None:
    """Train a network, test it once at the end, and write its checkpoint."""
    fit_or_resume(given)


@command(
    app,
    "eval --ckpt digits-resnet56-se",
    "eval --ckpt xray-plain --ckpt xray-se --data chest-xray --out tested",
    name="eval",
)
def eval_(
    networks: o.NetworkOptions,
    data: AllImages,
    out: Annotated[Path | None, option("Folder for the predictions and the numbers; by default none.")] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """How well do networks classify the test images of a data set, or find the objects in them?"""
    runs.evaluate.evaluate(networks, data, Out(out, overwrite, as_json))


@command(
    app,
    "fold --ckpt digits-resnet56-se --out folded",
    "fold --ckpt xray-se --max-accuracy-drop 0.01 --out folded",
)
def fold(networks: o.NetworkOptions, given: o.FoldOptions, *, data: o.DataOptions, out: Out) -> None:
    """Which gates can be made constants and folded into the layers beside them? What that costs, and saves."""
    runs.fold.fold(networks, given, data, out)


@command(
    app,
    "share --ckpt digits-resnet56-se --out shared.safetensors",
    "share --ckpt digits-resnet56-se --epochs 5 --out tuned.safetensors",
)
def share(networks: o.NetworkOptions, given: o.ShareOptions, *, data: o.DataOptions, out: Out) -> None:
    """What if the layers of a stage shared one attention module? Accuracy before and after, and the network."""
    runs.share.share(networks, given, data, out)


@command(app, "generate --ckpt run/model.safetensors --images 16 --out made")
def generate(
    ckpt: Annotated[
        str, option("A network that predicts noise, as dia-train fit writes it.", check=o.known_checkpoint)
    ],
    out: Annotated[Path, option("Folder for the images.")],
    given: GenerateOptions,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Make images out of noise; the same seed makes the same images."""
    write_images(ckpt, given, Out(out, overwrite, as_json))


@command(app, "import weights.pth --model cifar_resnet164 --out net.safetensors", name="import")
def import_(
    source: Annotated[Path, o.argument("A pickled state dict (.pth) of public code.", check=o.existing)],
    model: Annotated[str, option("The network it belongs to, as dia-train models lists it.", check=o.known_model)],
    out: Annotated[Path, option("The checkpoint to write.")],
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Make a checkpoint of public CIFAR weights (the paper's code, pytorchcv)."""
    runs.import_weights.import_weights(source, model, Out(out, overwrite, as_json))


@command(app, "models '*resnet164*'", "models --bundled")
def models(
    pattern: Annotated[str, o.argument("A shell pattern, such as '*resnet164*'.")] = "*",
    num_classes: Annotated[int, option("Classes to count the parameters for.", min=1)] = 100,
    audit: Annotated[bool, option("Instead, compare every parameter count of the paper with ours.")] = False,
    attention: Annotated[bool, option("Instead, list the attention modules as a Markdown table.")] = False,
    bundled: Annotated[bool, option("Instead, list the trained networks that come with the package.")] = False,
    as_json: o.Json = False,
) -> None:
    """List the networks and their trainable parameters."""
    if audit + attention + bundled > 1:
        raise typer.BadParameter("give one of --audit, --attention and --bundled", param_hint="--audit")
    if bundled:
        runs.models.print_bundled(as_json=as_json)
    elif attention or audit:
        (runs.models.print_attention if attention else runs.models.print_audit)(as_json=as_json)
    else:
        runs.models.print_models(pattern, num_classes, as_json=as_json)


@command(app, "sweep table11 --scale laptop --seeds 0-2 --out runs")
def sweep(
    name: Annotated[str, o.argument(SWEEP, metavar="SWEEP", check=o.known_sweep)],
    given: SweepOptions,
) -> None:
    """Train all networks of one of the paper's tables, and compare them; run again to continue."""
    run_sweep(name, given)


@command(app, "recipes")
def recipes(as_json: o.Json = False) -> None:
    """List the recipes, with their fields, and the sweeps, with their runs."""
    runs.models.print_recipes(as_json=as_json)


def main() -> None:
    """The command dia-train."""
    start(app)


if __name__ == "__main__":
    main()
