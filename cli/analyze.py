"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import options as o
from cli.main import start

app = typer.Typer(
    name="dia-analyze",
    help="Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keep the commands' names, also while there is only one."""


@app.command()
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
    from cli.correlation import report, report_store
    from cli.inputs import open_inputs
    from dia_analysis.processes import joined

    with joined():
        if capture is not None:
            default = Path("dia-out") / f"correlation-{capture.stem}"
            report_store(capture, out or default, batch_size=batch_size, overwrite=overwrite, as_json=as_json)
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
        default = Path("dia-out") / f"correlation-{inputs.checkpoint.name}"
        report(inputs, points, out or default, overwrite=overwrite, as_json=as_json)


@app.command()
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
    from cli.capture import capture_to_store
    from cli.inputs import open_inputs
    from dia_analysis.processes import joined

    with joined():
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
        path = out or Path("dia-out") / f"capture-{inputs.checkpoint.name}.zarr"
        capture_to_store(inputs, points, path, dtype=dtype, resume=resume, overwrite=overwrite, as_json=as_json)


@app.command()
def gradcam(
    ckpt: o.CkptsNeeded,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGES]...", help="Image files, and folders of them.")
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
    from cli.gradcam import Explanation, Selection, report

    report(
        ckpt,
        Selection(images or [], data, count, data_dir, workers, strict, download),
        Explanation(target, layer, call, method),
        trust=trust,
        device=device,
        batch_size=batch_size,
        seed=seed,
        out=out,
        overwrite=overwrite,
        as_json=as_json,
    )


@app.command()
def regions(
    ckpts: o.CkptsNeeded,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Lung masks: PNG files named as the images; by default fixed regions."),
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
    """Where in chest X-rays do networks look? Shares of the heatmaps in the lungs, the border and elsewhere."""
    from cli.gradcam import Explanation
    from cli.inputs import open_all
    from cli.regions import report

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
    default = Path("dia-out") / "-".join(["regions", *(each.checkpoint.name.replace("/", "-") for each in everyone)])
    report(everyone, masks, Explanation(layer=layer), out or default, trust=trust, overwrite=overwrite, as_json=as_json)


@app.command()
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
    from cli.gini import hidden_points, of_network, of_store, report
    from cli.inputs import open_inputs

    inputs = [
        open_inputs(
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
        for ckpt in ckpts or ()
    ]
    sources = [of_network(each, hidden_points(each, points) if hidden else points) for each in inputs]
    sources += [of_store(capture) for capture in captures or ()]
    default = Path("dia-out") / "-".join(["gini", *(source.name for source in sources)])
    report(sources, out or default, rows=rows, seed=seed, overwrite=overwrite, as_json=as_json)


@app.command()
def gradients(
    ckpts: o.Ckpts = None,
    models: o.Models = None,
    changes: o.Set = None,
    runs: Annotated[
        list[Path] | None, typer.Option("--run", help="The folder of a dia-train fit run; several times.")
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
    from cli.gradients import open_labelled, report
    from cli.networks import candidates, run_files

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
    default = Path("dia-out") / f"gradients-{compared[0].name.replace('/', '-')}"
    report(compared, labelled, points, out or default, per_block=per_block, overwrite=overwrite, as_json=as_json)


@app.command()
def cost(
    ckpts: o.Ckpts = None,
    models: o.Models = None,
    changes: o.Set = None,
    classes: Annotated[int, typer.Option("--classes", min=1, help="Classes of the networks of --model.")] = 100,
    image_size: Annotated[int, typer.Option("--image-size", min=8, help="Pixels, for the networks of --model.")] = 32,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="How often each network is timed.")] = 20,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
) -> None:
    """What does attention cost? Parameters, FLOPs, and time beside the backbone without it. (Section VI-B1)"""
    from cli.cost import report
    from cli.networks import candidates

    compared = candidates(ckpts or (), models or (), changes or ())
    report(
        compared,
        out or Path("dia-out") / f"cost-{compared[0].name.replace('/', '-')}",
        classes=classes,
        image_size=image_size,
        batch_size=batch_size,
        rounds=rounds,
        device=device,
        seed=seed,
        overwrite=overwrite,
        as_json=as_json,
    )


Runs = Annotated[list[Path], typer.Option("--runs", help="A folder that dia-train sweep wrote to; several times.")]


@app.command()
def tables(runs: Runs, out: o.Out = None, as_json: o.Json = False) -> None:
    """Which of the paper's claims hold in one's own runs? Tables III to XVII, with the paper's numbers beside."""
    from cli.tables import print_tables

    print_tables(runs, out, as_json=as_json)


@app.command(name="figures")
def figures_(runs: Runs, out: o.Out = None) -> None:
    """Draw the paper's figures of trained networks from one's own runs. (Figs. 10, 14, 15)"""
    from cli.tables import draw_figures

    draw_figures(runs, out or Path("dia-out") / "figures")


@app.command()
def report(
    ckpts: o.CkptsNeeded,
    xray: Annotated[bool, typer.Option("--xray", help="Instead, the page on chest X-ray networks.")] = False,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Lung masks for --xray: PNG files named as the images; else fixed regions."),
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
    from cli.inputs import open_all
    from cli.page import check_page
    from cli.report import DEFAULT, write_report
    from cli.testing import Options
    from cli.xray_report import DEFAULT as DEFAULT_XRAY
    from cli.xray_report import write_report as write_xray

    out = out or (DEFAULT_XRAY if xray else DEFAULT)
    check_page(out, overwrite)
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
    options = Options(data_dir, download, device, batch_size, workers, strict)
    if xray:
        write_xray(ckpts, everyone, masks, options, out)
    else:
        write_report(ckpts, everyone, options, out)


@app.command()
def demo(out: o.Out = None, overwrite: o.Overwrite = False, device: o.Device = "auto", seed: o.Seed = 0) -> None:
    """Run the analyses on bundled networks and scikit-learn's digits; needs no data and trains nothing."""
    from cli.demo import run_demo

    run_demo(out or Path("dia-out") / "demo", overwrite=overwrite, device=device, seed=seed)


def main() -> None:
    """The command dia-analyze."""
    start(app)


if __name__ == "__main__":
    main()
