"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.common import options as o
from cli.common.commands import command, program
from cli.common.main import start
from cli.common.options import (
    AttentionOptions,
    CostOptions,
    DataOptions,
    ExplainedImages,
    Explanation,
    GradientOptions,
    MeasuredImages,
    NetworkOptions,
    option,
)
from cli.common.publish import Out

app = program(
    "dia-analyze", "Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback."
)
FEWER_AT_ONCE = DataOptions(batch_size=32)
Runs = Annotated[list[Path], option("A folder that dia-train sweep wrote to; several times.", check=o.existing)]
MASKS = "Masks: PNG files named as the images; by default fixed parts of chest X-rays."
LUNGS = "Lung masks for --xray: PNG files named as the images; else fixed regions."


@app.callback()
def _commands(version: o.Version = False) -> None:
    """What holds for every command."""


@command(
    app,
    "dia-analyze correlation --ckpt digits-resnet56-se --images 100",
    "dia-analyze correlation --capture store.zarr",
)
def correlation(
    networks: NetworkOptions,
    capture: o.Capture = None,
    points: o.Points = None,
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """How strongly do the attention maps of different layers correlate? (Fig. 2)"""
    o.check_source(networks, capture, data, {"--points": points})
    from cli.common.inputs import open_networks
    from dia_analysis.distributed import process_group

    with process_group():
        everyone = [] if capture else open_networks(networks, data)
        from cli.analyses import correlation  # late: it draws

        if capture is not None:
            correlation.report_store(capture, out, batch_size=data.batch_size)
        else:
            correlation.report(everyone, points, out)


@command(app, "dia-analyze capture --ckpt digits-resnet56-se --images 100 --out store.zarr")
def capture(
    networks: NetworkOptions,
    points: o.Points = None,
    dtype: Annotated[
        Literal["float16", "float32"], option("float16 halves the store and rounds the maps.")
    ] = "float32",
    resume: Annotated[bool, option("Go on with the store after an interruption.")] = False,
    *,
    data: DataOptions,
    out: Annotated[Path | None, option("The store; by default a new one in dia-out/.")] = None,
    overwrite: Annotated[bool, option("Replace an existing store.")] = False,
    as_json: o.Json = False,
) -> None:
    """Keep the attention maps of many images in a Zarr store, for the other commands' --capture and for xarray."""
    if resume and overwrite:
        raise typer.BadParameter("give either this, to go on with the store, or --overwrite", param_hint="--resume")
    from cli.common.inputs import open_one
    from dia_analysis.distributed import process_group

    with process_group():
        inputs = open_one(networks, data, "capture")
        from cli.analyses.capture import capture_to_store  # late: it loads Zarr

        capture_to_store(inputs, points, Out(out, overwrite, as_json), dtype=dtype, resume=resume)


@command(app, "dia-analyze points --ckpt digits-resnet56-se", "dia-analyze points --model torchvision:efficientnet_b0")
def points(networks: NetworkOptions, points: o.Points = None, as_json: o.Json = False) -> None:
    """What can be captured of a network? Its attention, found by what it does with two random images."""
    from cli.common.networks import candidates

    found = candidates(networks)
    from cli.analyses.points import report  # late: it loads torch

    report(found, points, as_json=as_json)


@command(app, "dia-analyze attention --ckpt digits-resnet56-se --images 2")
def attention(
    networks: NetworkOptions,
    paths: o.ImagePaths = None,
    *,
    given: AttentionOptions,
    data: ExplainedImages,
    out: Out,
) -> None:
    """Look at the attention maps of some images, layer by layer, over the images where they lie there."""
    from cli.common.images import EXPLAINED
    from cli.common.inputs import open_one

    inputs = open_one(networks, data, "attention", EXPLAINED, paths or [])
    from cli.analyses.attention import report  # late: it loads the analyses

    report(inputs, given, out)


@command(
    app,
    "dia-analyze gradcam --ckpt digits-resnet56-se --layer stages.1.blocks.5",
    "dia-analyze gradcam --ckpt xray-plain --ckpt xray-se scan.png --trust",
)
def gradcam(
    networks: NetworkOptions,
    paths: o.ImagePaths = None,
    *,
    explanation: Explanation,
    trust: o.Trust = False,
    data: ExplainedImages,
    out: Out,
) -> None:
    """What do networks look at? Heatmaps side by side, and whether they can be trusted. (Fig. 9)"""
    from cli.common.images import EXPLAINED
    from cli.common.inputs import open_networks

    everyone = open_networks(networks, data, EXPLAINED, paths or [])
    from cli.analyses import gradcam  # late: it draws

    gradcam.report(everyone, explanation, trust=trust, out=out)


@command(
    app,
    "dia-analyze regions --ckpt xray-plain --ckpt xray-se --data chest-xray",
    "dia-analyze regions --ckpt xray-se --data folder:scans --masks lungs",
)
def regions(
    networks: NetworkOptions,
    masks: Annotated[Path | None, option(MASKS, check=o.existing)] = None,
    layer: o.Layer = None,
    trust: o.Trust = False,
    data: DataOptions = FEWER_AT_ONCE,
    *,
    out: Out,
) -> None:
    """Where do networks look? Shares of the heatmaps in fixed parts of chest X-rays, or in masks of any pictures."""
    from cli.common.inputs import open_networks

    everyone = open_networks(networks, data)
    from cli.analyses import regions  # late: it draws

    regions.report(everyone, masks, layer, out, trust=trust)


@command(app, "dia-analyze gini --ckpt digits-resnet56-se --ckpt digits-resnet56-dia-lstm")
def gini(
    networks: NetworkOptions,
    captures: o.Captures = None,
    points: o.Points = None,
    hidden: Annotated[bool, option("Capture DIA-LSTM's hidden state h (its gate).")] = False,
    rows: Annotated[
        Literal["centred", "raw", "vector"],
        option("Channels minus their means, raw channels, or one vector an image."),
    ] = "centred",
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """Which earlier layers predict a layer's attention? (Fig. 11)"""
    o.check_source(networks, captures, data, {"--points": points, "--hidden": hidden or None})
    from cli.common.inputs import open_each

    everyone = [] if captures else open_each(networks, data)
    from cli.analyses import gini  # late: it draws

    sources = [gini.of_network(each, points, hidden=hidden) for each in everyone]
    gini.report([*sources, *map(gini.of_store, captures or ())], out, rows=rows, seed=data.seed)


@command(
    app,
    "dia-analyze gradients --ckpt digits-resnet56-se --images 256",
    "dia-analyze gradients --model cifar_resnet56 --set skip=false --data digits",
)
def gradients(networks: NetworkOptions, given: GradientOptions, *, data: MeasuredImages, out: Out) -> None:
    """Where do gradients vanish or explode? The gradient at each stage's output. (Fig. 13)"""
    from cli.common.images import select_labelled
    from cli.common.inputs import default_data
    from cli.common.networks import candidates, run_files

    compared = candidates(networks, run_files(given.runs or [], given.every_epoch))
    images = select_labelled(data, default_data(compared) or "digits")
    from cli.analyses import gradients  # late: it draws

    gradients.report(compared, images, given, out)


@command(app, "dia-analyze cost --model cifar_resnet20_se --model cifar_resnet20_dia_lstm")
def cost(networks: NetworkOptions, given: CostOptions, *, out: Out) -> None:
    """What does attention cost? Parameters, FLOPs, and time beside the backbone without it. (Section VI-B1)"""
    from cli.common.networks import candidates

    compared = candidates(networks, tasks=("classification", "detection"))
    from cli.analyses import cost  # late: it draws

    cost.report(compared, given, out)


@command(app, "dia-analyze tables --runs runs")
def tables(
    runs: Runs,
    out: Annotated[Path | None, option("Folder for the tables as files; by default none.")] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Which of the paper's claims hold in your own runs? Tables III to XVII beside the paper's numbers."""
    from cli.analyses.tables import print_tables

    print_tables(runs, Out(out, overwrite, as_json))


@command(app, "dia-analyze figures --runs runs", name="figures")
def figures_(runs: Runs, out: o.OutFolder = None, overwrite: o.Overwrite = False) -> None:
    """Draw the paper's figures of trained networks from your own runs. (Figs. 10, 14, 15)"""
    from cli.analyses.tables import draw_figures

    draw_figures(runs, Out(out, overwrite))


@command(
    app,
    "dia-analyze report --ckpt digits-resnet56-se --images 200",
    "dia-analyze report --xray --ckpt xray-plain --ckpt xray-se --out xray.html",
)
def report(
    networks: NetworkOptions,
    xray: Annotated[bool, option("Instead, the page on chest X-ray networks.")] = False,
    masks: Annotated[Path | None, option(LUNGS, check=o.existing)] = None,
    data: DataOptions = FEWER_AT_ONCE,
    out: Annotated[Path | None, option("The page to write; by default one in dia-out/.")] = None,
    overwrite: Annotated[bool, option("Replace an existing page.")] = False,
) -> None:
    """One self-contained HTML page with all analyses of some networks, or on chest X-ray networks (--xray)."""
    if masks is not None and not xray:
        raise typer.BadParameter("only with --xray: the page on chest X-ray networks shows them", param_hint="--masks")
    if xray:
        from cli.pages.xray_report import write_xray_report

        write_xray_report(networks, masks, data, Out(out, overwrite))
    else:
        from cli.pages.report import write_report

        write_report(networks, data, Out(out, overwrite))


@command(app, "dia-analyze demo --out dia-out/demo")
def demo(out: o.OutFolder = None, overwrite: o.Overwrite = False, device: o.Device = "auto", seed: o.Seed = 0) -> None:
    """Run the analyses on bundled networks and scikit-learn's digits; needs no data and trains nothing."""
    from cli.pages.demo import run_demo

    run_demo(Out(out, overwrite), device=device, seed=seed)


def main() -> None:
    """The command dia-analyze."""
    start(app)


if __name__ == "__main__":
    main()
