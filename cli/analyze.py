"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import analyses, common, pages
from cli.common import options as o
from cli.common.commands import command, program
from cli.common.main import start
from cli.common.options import DataOptions, option
from cli.common.publish import Out

app = program(
    "dia-analyze", "Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback."
)
FEWER_AT_ONCE = DataOptions(batch_size=32)
Runs = Annotated[list[Path], option("A folder that dia-train sweep wrote to; several times.", check=o.existing)]
MASKS = "Masks: PNG files named as the images; by default those beside the data, else fixed parts of chest X-rays."
LUNGS = "Lung masks for --xray: PNG files named as the images; by default those beside the data, else fixed regions."


@command(app, "correlation --ckpt digits-resnet56-se --images 100", "correlation --capture store.zarr")
def correlation(
    networks: o.NetworkOptions,
    runs: Annotated[list[Path] | None, option("A sweep's folder: all its finished runs.", check=o.existing)] = None,
    capture: o.Capture = None,
    points: o.Points = None,
    similarity: Annotated[
        list[str] | None,
        option("Besides r and CKA: spearman, cosine, logit, sorted; several times."),
    ] = None,
    readings: Annotated[bool, option("Fig. 2 in several readings, side by side.")] = False,
    by_index: Annotated[bool, option("Compare heads of self-attention as they are numbered.")] = False,
    across: Annotated[bool, option("Also CKA between the layers of each two networks.")] = False,
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """How strongly do the attention maps of different layers correlate? (Fig. 2)"""
    o.check_source(
        networks,
        capture,
        data,
        {"--points": points, "--across": across or None, "--readings": readings or None},
        runs,
    )
    if across and not runs and len([*(networks.ckpts or ()), *(networks.models or ())]) < 2:
        raise typer.BadParameter("takes two networks or more: --ckpt A --ckpt B", param_hint="--across")
    from dia_analysis.correlation.similarity_names import check_similarities
    from dia_analysis.distributed import process_group

    others = check_similarities(similarity or ())
    with process_group():
        # Networks first: the analyses take seconds to import.
        files = common.networks.sweep_files(runs or [])
        everyone = [] if capture else common.inputs.open_networks(networks, data, runs=files)
        what = analyses.correlation.What(points, others, readings, by_index, across)
        if capture is None:
            analyses.correlation.report(everyone, what, out)
        else:
            analyses.correlation.report_store(capture, what, out, batch_size=data.batch_size)


@command(app, "capture --ckpt digits-resnet56-se --images 100 --out store.zarr")
def capture(
    networks: o.NetworkOptions,
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
    from dia_analysis.distributed import process_group

    with process_group():
        network = common.inputs.open_one(networks, data)
        analyses.capture.capture_to_store(network, points, Out(out, overwrite, as_json), dtype=dtype, resume=resume)


@command(app, "points --ckpt digits-resnet56-se", "points --model torchvision:efficientnet_b0")
def points(networks: o.NetworkOptions, points: o.Points = None, as_json: o.Json = False) -> None:
    """What can be captured of a network? Its attention, found by what it does with two random images."""
    compared = common.networks.candidates(networks)
    analyses.points.report(compared, points, as_json=as_json)


@command(app, "attention --ckpt digits-resnet56-se --images 2")
def attention(
    networks: o.NetworkOptions,
    paths: o.ImagePaths = None,
    *,
    given: o.AttentionOptions,
    data: o.ExplainedImages,
    out: Out,
) -> None:
    """Look at the attention maps of some images, layer by layer, over the images where they lie there."""
    inputs = common.inputs.open_one(networks, data, common.images.EXPLAINED, paths or [])
    analyses.attention.report(inputs, given, out)


@command(
    app,
    "gradcam --ckpt digits-resnet56-se --layer stages.1.blocks.5",
    "gradcam --ckpt xray-plain --ckpt xray-se scan.png --trust",
)
def gradcam(
    networks: o.NetworkOptions,
    paths: o.ImagePaths = None,
    *,
    explanation: o.Explanation,
    trust: o.Trust = False,
    data: o.ExplainedImages,
    out: Out,
) -> None:
    """What do networks look at? Heatmaps side by side, and whether they can be trusted. (Fig. 9)"""
    everyone = common.inputs.open_networks(networks, data, common.images.EXPLAINED, paths or [])
    analyses.gradcam.report(everyone, explanation, trust=trust, out=out)


@command(
    app,
    "regions --ckpt xray-plain --ckpt xray-se --data chest-xray",
    "regions --ckpt xray-se --data folder:scans --masks lungs",
)
def regions(
    networks: o.NetworkOptions,
    masks: Annotated[Path | None, option(MASKS, check=o.existing)] = None,
    target: o.ExplainedClass = None,
    layer: o.Layer = None,
    trust: o.Trust = False,
    data: DataOptions = FEWER_AT_ONCE,
    *,
    out: Out,
) -> None:
    """Where do networks look? Shares of the heatmaps in fixed parts of chest X-rays, or in masks of any pictures."""
    everyone = common.inputs.open_networks(networks, data)
    analyses.regions.report(everyone, masks, analyses.regions.Explained(target, layer), out, trust=trust)


@command(app, "gini --ckpt digits-resnet56-se --ckpt digits-resnet56-dia-lstm")
def gini(
    networks: o.NetworkOptions,
    given: o.GiniOptions,
    captures: o.Captures = None,
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """Which earlier layers predict a layer's attention? (Fig. 11)"""
    o.check_source(networks, captures, data, {"--points": given.points, "--hidden": given.hidden or None})
    everyone = [] if captures else common.inputs.open_each(networks, data)
    analyses.gini.report(everyone, captures or [], given, out, seed=data.seed)


@command(
    app,
    "gradients --ckpt digits-resnet56-se --images 256",
    "gradients --model cifar_resnet56 --set skip=false --data digits",
)
def gradients(networks: o.NetworkOptions, given: o.GradientOptions, *, data: o.MeasuredImages, out: Out) -> None:
    """Where do gradients vanish or explode? The gradient at each stage's output. (Fig. 13)"""
    compared = common.networks.candidates(networks, common.networks.run_files(given.runs or [], given.every_epoch))
    images = common.images.select_labelled(data, common.inputs.default_data(compared[:1]) or "digits")
    analyses.gradients.report(compared, images, given, out)


@command(
    app,
    "ablate --ckpt digits-resnet56-se --images 100 --replace-by mean",
    "ablate --ckpt cifar10-resnet29-se --layers each --replace-by mean",
)
def ablate(networks: o.NetworkOptions, *, given: o.AblationOptions, data: DataOptions, out: Out) -> None:
    """Does the attention matter, and does its dependence on the image? Maps are replaced while the network runs."""
    analyses.ablate.report(common.inputs.open_each(networks, data), given, data, out)


@command(app, "cost --model cifar_resnet20_se --model cifar_resnet20_dia_lstm")
def cost(networks: o.NetworkOptions, given: o.CostOptions, *, out: Out) -> None:
    """What does attention cost? Parameters, FLOPs, and time beside the backbone without it. (Section VI-B1)"""
    compared = common.networks.candidates(networks, tasks=("classification", "detection"))
    analyses.cost.report(compared, given, out)


@command(app, "tables --runs runs")
def tables(
    runs: Runs,
    out: Annotated[Path | None, option("Folder for the tables as files; by default none.")] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Which of the paper's claims hold in your own runs? Tables III to XVII beside the paper's numbers."""
    analyses.tables.print_tables(runs, Out(out, overwrite, as_json))


@command(app, "figures --runs runs", name="figures")
def figures_(runs: Runs, out: o.OutFolder = None, overwrite: o.Overwrite = False) -> None:
    """Draw the paper's figures of trained networks from your own runs. (Figs. 10, 14, 15)"""
    analyses.tables.draw_figures(runs, Out(out, overwrite))


@command(
    app,
    "report --ckpt digits-resnet56-se --images 200",
    "report --xray --ckpt xray-plain --ckpt xray-se --out xray.html",
)
def report(
    networks: o.NetworkOptions,
    xray: Annotated[bool, option("Instead, the page on chest X-ray networks.")] = False,
    masks: Annotated[Path | None, option(LUNGS, check=o.existing)] = None,
    data: DataOptions = FEWER_AT_ONCE,
    out: Annotated[Path | None, option("The page to write; by default one in dia-out/.")] = None,
    overwrite: Annotated[bool, option("Replace an existing page.")] = False,
) -> None:
    """One self-contained HTML page with all analyses of some networks, or on chest X-ray networks (--xray)."""
    if masks is not None and not xray:
        raise typer.BadParameter("only with --xray: the page on chest X-ray networks shows them", param_hint="--masks")
    everyone = common.inputs.open_networks(networks, data)
    if xray:
        pages.xray_report.write_xray_report(networks, everyone, masks, data, Out(out, overwrite))
    else:
        pages.report.write_report(networks, everyone, data, Out(out, overwrite))


@command(app, "demo --out dia-out/demo")
def demo(out: o.OutFolder = None, overwrite: o.Overwrite = False, device: o.Device = "auto", seed: o.Seed = 0) -> None:
    """Run the analyses on bundled networks and scikit-learn's digits; needs no data and trains nothing."""
    pages.demo.run_demo(Out(out, overwrite), device=device, seed=seed)


def main() -> None:
    """The command dia-analyze."""
    start(app)


if __name__ == "__main__":
    main()
