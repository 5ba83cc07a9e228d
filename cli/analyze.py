"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.common import options as o
from cli.common.help import Command, Group, examples
from cli.common.main import start

app = typer.Typer(
    cls=Group,
    name="dia-analyze",
    help="Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands(version: o.Version = False) -> None:
    """What holds for every command."""


@app.command(
    cls=Command,
    epilog=examples(
        "dia-analyze correlation --ckpt digits-resnet56-se --images 100",
        "dia-analyze correlation --capture store.zarr",
    ),
)
def correlation(
    ckpt: Annotated[str | None, o.CKPT] = None,
    capture: o.Capture = None,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")
    ] = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """How strongly do the attention maps of different layers correlate? (Fig. 2)"""
    o.check_source(ckpt, capture, {"--data": data, "--images": images, "--points": points, "--data-dir": data_dir})
    from cli.common.inputs import open_inputs
    from cli.common.publish import Out
    from dia_analysis.distributed import process_group

    with process_group():
        if capture is not None:
            from cli.analyses.correlation import report_store

            report_store(capture, Out(out, overwrite), batch_size=batch_size, as_json=as_json)
            return
        assert ckpt is not None
        inputs = open_inputs(
            ckpt,
            data,
            images,
            data_dir=data_dir,
            download=download,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            seed=seed,
        )
        from cli.analyses.correlation import report  # late: it draws

        report(inputs, points, Out(out, overwrite), as_json=as_json)


@app.command(
    cls=Command, epilog=examples("dia-analyze capture --ckpt digits-resnet56-se --images 100 --out store.zarr")
)
def capture(
    ckpt: o.Ckpt,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option("--dtype", help="float16 halves the store and rounds the maps.")
    ] = "float32",
    out: Annotated[Path | None, typer.Option("--out", help="The store; by default a new one in dia-out/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the store after an interruption.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """Keep the attention maps of many images in a Zarr store, for the other commands' --capture and for xarray."""
    if resume and overwrite:
        raise typer.BadParameter("give either this, to go on with the store, or --overwrite", param_hint="--resume")
    from cli.common.inputs import open_inputs
    from cli.common.publish import Out
    from dia_analysis.distributed import process_group

    with process_group():
        inputs = open_inputs(
            ckpt,
            data,
            images,
            data_dir=data_dir,
            download=download,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            seed=seed,
        )
        from cli.analyses.capture import capture_to_store  # late: it loads Zarr

        capture_to_store(inputs, points, Out(out, overwrite), dtype=dtype, resume=resume, as_json=as_json)


@app.command(
    cls=Command,
    epilog=examples(
        "dia-analyze gradcam --ckpt digits-resnet56-se --layer stages.1.blocks.5",
        "dia-analyze gradcam --ckpt xray-plain --ckpt xray-se scan.png --trust",
    ),
)
def gradcam(
    ckpt: o.CkptsNeeded,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]...",
            help="Image files, and folders of them.",
            callback=o.each_checked(o.existing("IMAGES")),
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="A class by name or number; by default the predicted one.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="A module by name; by default the last block.")] = None,
    call: Annotated[
        int | None, typer.Option("--call", help="Which application of a shared module, from 0; by default the last.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="gradcam, gradcam++, hirescam, layercam, ...")] = "gradcam",
    trust: Annotated[bool, typer.Option("--trust", help="Check whether the maps can be trusted.")] = False,
    data: o.Data = None,
    count: Annotated[
        int | None, typer.Option("--images", min=1, help="How many of the data set; by default 4.")
    ] = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """What do networks look at? Heatmaps side by side, and whether they can be trusted. (Fig. 9)"""
    from cli.common.images import Selection, open_networks
    from cli.common.publish import Out

    selection = Selection(images or [], data, count, data_dir, workers, strict, download)
    everyone, chosen = open_networks(ckpt, selection, device=device, batch_size=batch_size, seed=seed)
    from cli.analyses.gradcam import Explanation, report  # late: it draws

    explanation = Explanation(target, layer, call, method)
    report(everyone, chosen, explanation, trust=trust, out=Out(out, overwrite), as_json=as_json)


@app.command(
    cls=Command,
    epilog=examples(
        "dia-analyze regions --ckpt xray-plain --ckpt xray-se --data chest-xray",
        "dia-analyze regions --ckpt xray-se --data folder:scans --masks lungs",
    ),
)
def regions(
    ckpts: o.CkptsNeeded,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            help="Masks: PNG files named as the images; by default fixed parts of chest X-rays.",
            callback=o.each_checked(o.existing("masks")),
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="A module by name; by default the last block.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Check whether the maps can be trusted.")] = False,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """Where do networks look? Shares of the heatmaps in fixed parts of chest X-rays, or in masks of any pictures."""
    from cli.common.inputs import open_all
    from cli.common.publish import Out

    everyone = open_all(
        ckpts,
        data,
        images,
        data_dir=data_dir,
        download=download,
        device=device,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        seed=seed,
    )
    from cli.analyses.gradcam import Explanation
    from cli.analyses.regions import report  # late: it draws

    report(everyone, masks, Explanation(layer=layer), Out(out, overwrite), trust=trust, as_json=as_json)


@app.command(cls=Command, epilog=examples("dia-analyze gini --ckpt digits-resnet56-se --ckpt digits-resnet56-dia-lstm"))
def gini(
    ckpts: o.Ckpts = None,
    captures: o.Captures = None,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Capture DIA-LSTM's hidden state h, its gate.")] = False,
    rows: Annotated[
        Literal["centred", "raw", "vector"],
        typer.Option("--rows", help="Channels without their means, channels as they are, or whole vectors by image."),
    ] = "centred",
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """Which earlier layers tell what a layer's attention will be? (Fig. 11)"""
    given = {"--data": data, "--images": images, "--points": points, "--data-dir": data_dir}
    o.check_source(ckpts, captures, {**given, "--hidden": hidden or None})
    from cli.common.inputs import open_inputs
    from cli.common.naming import read_named
    from cli.common.publish import Out

    inputs = [
        open_inputs(
            checkpoint,
            data,
            images,
            data_dir=data_dir,
            download=download,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            seed=seed,
        )
        for checkpoint in read_named(ckpts or [])
    ]
    from cli.analyses.gini import hidden_points, of_network, of_store, report  # late: it draws

    sources = [of_network(each, hidden_points(each, points) if hidden else points) for each in inputs]
    sources += [of_store(capture) for capture in captures or ()]
    report(sources, Out(out, overwrite), rows=rows, seed=seed, as_json=as_json)


@app.command(
    cls=Command,
    epilog=examples(
        "dia-analyze gradients --ckpt digits-resnet56-se --images 256",
        "dia-analyze gradients --model cifar_resnet56 --set skip=false --data digits",
    ),
)
def gradients(
    ckpts: o.Ckpts = None,
    models: o.Models = None,
    changes: o.ModelSet = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="The folder of a dia-train fit run; several times.",
            callback=o.each_checked(o.existing("run")),
        ),
    ] = None,
    every_epoch: Annotated[
        bool, typer.Option("--every-epoch", help="All epochs that the runs kept (dia-train fit --keep-every).")
    ] = False,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 512, or all.")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=8, help="Resize images of files to this, for --model.")
    ] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules that count as stages, such as 'layer*'.")
    ] = None,
    per_block: Annotated[bool, typer.Option("--per-block", help="Also at the output of every block.")] = False,
    mode: Annotated[
        Literal["training", "evaluation"],
        typer.Option("--mode", help="Batch norm by the batch's statistics, or by its own: each image by itself."),
    ] = "training",
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="Random weights for --model: from this many seeds, --seed first.")
    ] = 5,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """Where do gradients vanish or explode? The gradient at each stage's output. (Fig. 13)"""
    from cli.common.images import open_labelled
    from cli.common.networks import candidates, run_files
    from cli.common.publish import Out

    compared = candidates(ckpts or (), models or (), changes or (), run_files(runs or [], every_epoch))
    labelled = open_labelled(
        data,
        compared[0].read(),
        images,
        data_dir=data_dir,
        download=download,
        image_size=image_size,
        device=device,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        seed=seed,
    )
    from cli.analyses.gradients import Measurement, report  # late: it draws

    measure = Measurement(points, per_block, mode, draws)
    report(compared, labelled, measure, Out(out, overwrite), as_json=as_json)


@app.command(cls=Command, epilog=examples("dia-analyze cost --model cifar_resnet20_se --model cifar_resnet20_dia_lstm"))
def cost(
    ckpts: o.Ckpts = None,
    models: o.Models = None,
    changes: o.ModelSet = None,
    classes: Annotated[int, typer.Option("--classes", min=1, help="Classes of the networks of --model.")] = 100,
    image_size: Annotated[int, typer.Option("--image-size", min=8, help="Pixels, for the networks of --model.")] = 32,
    rounds: Annotated[int, typer.Option("--rounds", min=6, help="How often each network is timed; 6 or more.")] = 20,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
) -> None:
    """What does attention cost? Parameters, FLOPs, and time beside the backbone without it. (Section VI-B1)"""
    from cli.common.networks import candidates
    from cli.common.publish import Out

    compared = candidates(ckpts or (), models or (), changes or (), tasks=("classification", "detection"))
    from cli.analyses.cost import report  # late: it draws

    report(
        compared,
        Out(out, overwrite),
        classes=classes,
        image_size=image_size,
        batch_size=batch_size,
        rounds=rounds,
        device=device,
        seed=seed,
        as_json=as_json,
    )


Runs = Annotated[
    list[Path],
    typer.Option(
        "--runs",
        help="A folder that dia-train sweep wrote to; several times.",
        callback=o.each_checked(o.existing("runs")),
    ),
]


@app.command(cls=Command, epilog=examples("dia-analyze tables --runs runs"))
def tables(
    runs: Runs,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the tables as files; by default none.")] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Which of the paper's claims hold in one's own runs? Tables III to XVII, with the paper's numbers beside."""
    from cli.analyses.tables import print_tables
    from cli.common.publish import Out

    print_tables(runs, Out(out, overwrite), as_json=as_json)


@app.command(name="figures", cls=Command, epilog=examples("dia-analyze figures --runs runs"))
def figures_(runs: Runs, out: o.Out = None, overwrite: o.Overwrite = False) -> None:
    """Draw the paper's figures of trained networks from one's own runs. (Figs. 10, 14, 15)"""
    from cli.analyses.tables import draw_figures
    from cli.common.publish import Out

    draw_figures(runs, Out(out, overwrite))


@app.command(
    cls=Command,
    epilog=examples(
        "dia-analyze report --ckpt digits-resnet56-se --images 200",
        "dia-analyze report --xray --ckpt xray-plain --ckpt xray-se --out xray.html",
    ),
)
def report(
    ckpts: o.CkptsNeeded,
    xray: Annotated[bool, typer.Option("--xray", help="Instead, the page on chest X-ray networks.")] = False,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            help="Lung masks for --xray: PNG files named as the images; else fixed regions.",
            callback=o.each_checked(o.existing("masks")),
        ),
    ] = None,
    data: o.Data = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, help="How many; by default 1,000, or all. With --xray, all are tested."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page to write; by default one in dia-out/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """One self-contained HTML page with all analyses of some networks, or on chest X-ray networks (--xray)."""
    if masks is not None and not xray:
        raise typer.BadParameter("only with --xray: the page on chest X-ray networks shows them", param_hint="--masks")
    from cli.common.inputs import open_all
    from cli.common.publish import Out

    everyone = open_all(
        ckpts,
        data,
        images,
        data_dir=data_dir,
        download=download,
        device=device,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        seed=seed,
    )
    from cli.pages.report import write_report  # late: they draw
    from cli.pages.xray_report import write_report as write_xray
    from cli.runs.predictions import Options

    options = Options(data_dir, download, device, batch_size, workers, strict)
    if xray:
        write_xray(ckpts, everyone, masks, options, Out(out, overwrite))
    else:
        write_report(ckpts, everyone, options, Out(out, overwrite))


@app.command(cls=Command, epilog=examples("dia-analyze demo --out dia-out/demo"))
def demo(out: o.Out = None, overwrite: o.Overwrite = False, device: o.Device = "auto", seed: o.Seed = 0) -> None:
    """Run the analyses on bundled networks and scikit-learn's digits; needs no data and trains nothing."""
    from cli.common.publish import Out
    from cli.pages.demo import run_demo

    run_demo(Out(out, overwrite), device=device, seed=seed)


def main() -> None:
    """The command dia-analyze."""
    start(app)


if __name__ == "__main__":
    main()
