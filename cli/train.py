"""dia-train: train the networks that dia-analyze looks into."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.common import options as o
from cli.common.help import Command, Group, examples
from cli.common.main import start

app = typer.Typer(
    cls=Group,
    name="dia-train",
    help="Train and test attention networks. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands(version: o.Version = False) -> None:
    """What holds for every command."""


@app.command(
    cls=Command,
    epilog=examples(
        "dia-train fit --model cifar_resnet20_se --data digits --set epochs=2 --out run",
        "dia-train fit --resume --out run",
    ),
)
def fit(
    model: Annotated[
        str | None,
        typer.Option("--model", help="A name that dia-train models lists.", callback=o.each_checked(o.known_model)),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="digits, cifar10 or folder:PATH; for detectors coco, coco:PATH.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A name that dia-train recipes lists.", callback=o.each_checked(o.known_recipe)),
    ] = None,
    changes: o.Set = None,
    out: o.Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out after an interruption.")] = False,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=8, help="Resize the images of a folder to this many pixels."),
    ] = None,
    channels: Annotated[int, typer.Option("--channels", help="Read the images of a folder as 1 (grey) or 3.")] = 3,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from a checkpoint's weights, a path or a bundled name.",
            callback=o.each_checked(partial(o.known_checkpoint, argument="from")),
        ),
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(
            "--keep-every", min=1, help="Also keep the network before training and after every so many epochs."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard, into the run's folder.")
    ] = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    strict: o.Strict = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Train a network, test it once at the end, and write its checkpoint."""
    from cli.runs.fit import fit_or_resume

    fit_or_resume(
        model,
        data,
        recipe,
        changes or [],
        out=out,
        resume=resume,
        image_size=image_size,
        channels=channels,
        start_from=start_from,
        keep_every=keep_every,
        data_dir=data_dir,
        download=download,
        strict=strict,
        device=device,
        seed=seed,
        as_json=as_json,
        tensorboard=tensorboard,
    )


@app.command(
    name="eval",
    cls=Command,
    epilog=examples(
        "dia-train eval --ckpt digits-resnet56-se",
        "dia-train eval --ckpt xray-plain --ckpt xray-se --data chest-xray --out tested",
    ),
)
def evaluate(
    ckpts: o.CkptsNeeded,
    data: o.Data = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the predictions and the numbers; by default none.")
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 256,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """How well do networks classify the test images of a data set, or find the objects in them?"""
    from cli.common.publish import Out
    from cli.runs.evaluate import evaluate_checkpoints
    from cli.runs.evaluate_detectors import are_detectors, evaluate_detectors
    from cli.runs.predictions import Options

    options = Options(data_dir, download, device, batch_size, workers, strict)
    score = evaluate_detectors if are_detectors(ckpts) else evaluate_checkpoints
    score(ckpts, data, options, out=Out(out, overwrite), as_json=as_json)


@app.command(cls=Command, epilog=examples("dia-train generate --ckpt run/model.safetensors --images 16 --out made"))
def generate(
    ckpt: Annotated[
        str,
        typer.Option(
            "--ckpt",
            help="A network that predicts noise, as dia-train fit writes it.",
            callback=o.each_checked(o.known_checkpoint),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.")],
    images: Annotated[int, typer.Option("--images", min=1, help="How many.")] = 64,
    steps: Annotated[int, typer.Option("--steps", min=2, help="Times that the network is asked for each image.")] = 50,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Also give the Fréchet distance to the training images in the features of a classifier (a path or a "
            "bundled name), or of inception: the FID.",
        ),
    ] = None,
    data_dir: o.DataDir = None,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 256,
    seed: o.Seed = 0,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Make images out of noise; the same seed makes the same images."""
    from cli.common.publish import Out
    from cli.runs.generate import generate_images

    generate_images(
        ckpt,
        images,
        steps=steps,
        features=features,
        out=Out(out, overwrite),
        data_dir=data_dir,
        device=device,
        batch_size=batch_size,
        seed=seed,
        as_json=as_json,
    )


@app.command(
    name="import",
    cls=Command,
    epilog=examples("dia-train import weights.pth --model cifar_resnet164 --out net.safetensors"),
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A pickled state dict (.pth) of public code.", callback=o.each_checked(o.existing("SOURCE"))
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="The network it belongs to, as dia-train models lists it.",
            callback=o.each_checked(o.known_model),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint to write.")],
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Make a checkpoint of public CIFAR weights (the paper's code, pytorchcv)."""
    from cli.common.publish import Out
    from cli.runs.import_weights import import_weights

    import_weights(source, model, Out(out, overwrite), as_json=as_json)


@app.command(cls=Command, epilog=examples("dia-train models '*resnet164*'", "dia-train models --bundled"))
def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as '*resnet164*'.")] = "*",
    num_classes: Annotated[int, typer.Option("--classes", min=1, help="Classes to count the parameters for.")] = 100,
    audit: Annotated[
        bool, typer.Option("--audit", help="Instead, put every parameter count of the paper beside ours.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Instead, list the attention modules as a Markdown table.")
    ] = False,
    bundled: Annotated[
        bool, typer.Option("--bundled", help="Instead, list the trained networks that come with the package.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """List the networks and their trainable parameters."""
    if audit + attention + bundled > 1:
        raise typer.BadParameter("give one of --audit, --attention and --bundled", param_hint="--audit")
    from cli.runs.models import print_attention, print_audit, print_bundled, print_models

    if bundled:
        print_bundled(as_json=as_json)
    elif attention:
        print_attention()
    elif audit:
        print_audit(as_json=as_json)
    else:
        print_models(pattern, num_classes, as_json=as_json)


@app.command(cls=Command, epilog=examples("dia-train sweep table11 --scale laptop --seeds 0-2 --out runs"))
def sweep(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP",
            help="A name that dia-train recipes lists, or a TOML file.",
            callback=o.each_checked(o.known_sweep),
        ),
    ],
    seeds: Annotated[str | None, typer.Option("--seeds", help="0-4 or 0,7; by default the scale's.")] = None,
    scale: Annotated[str, typer.Option("--scale", help="paper, or laptop: smaller, for two cores.")] = "paper",
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time; by default one per GPU or core.")
    ] = None,
    executor: Annotated[
        str, typer.Option("--executor", help="local, or ray: on the Ray cluster that is running here.")
    ] = "local",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: a field of the recipe, for every run.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="A folder of checkpoints, each named for the network or classifier that starts."),
    ] = None,
    out: o.Out = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    strict: o.Strict = False,
    device: o.Device = "auto",
    as_json: o.Json = False,
) -> None:
    """Train all networks of one of the paper's tables, and compare them; run again to continue."""
    from cli.runs.sweep import sweep as run

    run(
        name,
        scale,
        seeds,
        changes or [],
        out=out,
        jobs=jobs,
        executor=executor,
        start_from=start_from,
        data_dir=data_dir,
        download=download,
        strict=strict,
        device=device,
        as_json=as_json,
    )


@app.command(cls=Command, epilog=examples("dia-train recipes"))
def recipes(as_json: o.Json = False) -> None:
    """List the recipes, with their fields, and the sweeps, with their runs."""
    from cli.runs.models import print_recipes

    print_recipes(as_json=as_json)


def main() -> None:
    """The command dia-train."""
    start(app)


if __name__ == "__main__":
    main()
