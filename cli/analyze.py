"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.common import options as o
from cli.common.commands import command, program
from cli.common.main import start
from cli.common.options import DataOptions, ExplainedImages, Explanation, MeasuredImages, NetworkOptions
from cli.common.publish import Out

app = program(
    "dia-analyze", "Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback."
)
FEWER_AT_ONCE = DataOptions(batch_size=32)
Runs = Annotated[
    list[Path], o.option("--runs", "A folder that dia-train sweep wrote to; several times.", check=o.existing("runs"))
]
Masks = Annotated[
    Path | None,
    o.option(
        "--masks",
        "Masks: PNG files named as the images; by default fixed parts of chest X-rays.",
        check=o.existing("masks"),
    ),
]


@app.callback()
def _commands(version: o.Version = False) -> None:
    """What holds for every command."""


@command(
    app,
    "dia-analyze correlation --ckpt digits-resnet56-se --images 100",
    "dia-analyze correlation --capture store.zarr",
)
def correlation(
    ckpts: o.Ckpts = None,
    capture: o.Capture = None,
    points: o.Points = None,
    similarity: Annotated[
        list[str] | None,
        o.option("--similarity", "Besides r and CKA: spearman, cosine, logit, sorted; several times."),
    ] = None,
    readings: Annotated[bool, o.option("--readings", "Fig. 2 in several readings, side by side.")] = False,
    across: Annotated[bool, o.option("--across", "Also CKA between the layers of each two networks.")] = False,
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """How strongly do the attention maps of different layers correlate? (Fig. 2)"""
    o.check_source(ckpts, capture, data, {"--points": points, "--across": across or None})
    if across and len(ckpts or ()) < 2:
        raise typer.BadParameter("takes two networks or more: --ckpt A --ckpt B", param_hint="--across")
    from cli.common.inputs import open_networks
    from dia_analysis.correlation.similarity_names import READINGS, check_similarities
    from dia_analysis.distributed import process_group

    others = check_similarities([*(similarity or ()), *(READINGS if readings else ())])
    with process_group():
        everyone = open_networks(ckpts, data) if ckpts else []
        from cli.analyses import correlation  # late: it draws

        if capture is not None:
            correlation.report_store(capture, others, out, batch_size=data.batch_size)
        else:
            correlation.report(everyone, correlation.What(points, others, across), out)


@command(app, "dia-analyze capture --ckpt digits-resnet56-se --images 100 --out store.zarr")
def capture(
    ckpt: o.Ckpt,
    points: o.Points = None,
    dtype: Annotated[
        Literal["float16", "float32"], o.option("--dtype", "float16 halves the store and rounds the maps.")
    ] = "float32",
    resume: Annotated[bool, o.option("--resume", "Go on with the store after an interruption.")] = False,
    *,
    data: DataOptions,
    out: Annotated[Path | None, o.option("--out", "The store; by default a new one in dia-out/.")] = None,
    overwrite: Annotated[bool, o.option("--overwrite", "Replace an existing store.")] = False,
    as_json: o.Json = False,
) -> None:
    """Keep the attention maps of many images in a Zarr store, for the other commands' --capture and for xarray."""
    if resume and overwrite:
        raise typer.BadParameter("give either this, to go on with the store, or --overwrite", param_hint="--resume")
    from cli.common.inputs import open_networks
    from dia_analysis.distributed import process_group

    with process_group():
        [inputs] = open_networks([ckpt], data)
        from cli.analyses.capture import capture_to_store  # late: it loads Zarr

        capture_to_store(inputs, points, Out(out, overwrite, as_json), dtype=dtype, resume=resume)


@command(
    app,
    "dia-analyze gradcam --ckpt digits-resnet56-se --layer stages.1.blocks.5",
    "dia-analyze gradcam --ckpt xray-plain --ckpt xray-se scan.png --trust",
)
def gradcam(
    ckpts: o.CkptsNeeded,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]...",
            help="Image files, and folders of them.",
            callback=o.each_checked(o.existing("IMAGES")),
        ),
    ] = None,
    *,
    explanation: Explanation,
    trust: o.Trust = False,
    data: ExplainedImages,
    out: Out,
) -> None:
    """What do networks look at? Heatmaps side by side, and whether they can be trusted. (Fig. 9)"""
    from cli.common.images import EXPLAINED
    from cli.common.inputs import open_networks

    everyone = open_networks(ckpts, data, EXPLAINED, paths or [])
    from cli.analyses import gradcam  # late: it draws

    gradcam.report(everyone, explanation, trust=trust, out=out)


@command(
    app,
    "dia-analyze regions --ckpt xray-plain --ckpt xray-se --data chest-xray",
    "dia-analyze regions --ckpt xray-se --data folder:scans --masks lungs",
)
def regions(
    ckpts: o.CkptsNeeded,
    masks: Masks = None,
    layer: o.Layer = None,
    trust: o.Trust = False,
    data: DataOptions = FEWER_AT_ONCE,
    *,
    out: Out,
) -> None:
    """Where do networks look? Shares of the heatmaps in fixed parts of chest X-rays, or in masks of any pictures."""
    from cli.common.inputs import open_networks

    everyone = open_networks(ckpts, data)
    from cli.analyses.regions import report_regions  # late: it draws

    report_regions(everyone, masks, Explanation(layer=layer), out, trust=trust)


@command(app, "dia-analyze gini --ckpt digits-resnet56-se --ckpt digits-resnet56-dia-lstm")
def gini(
    ckpts: o.Ckpts = None,
    captures: o.Captures = None,
    points: o.Points = None,
    hidden: Annotated[bool, o.option("--hidden", "Capture DIA-LSTM's hidden state h (its gate).")] = False,
    rows: Annotated[
        Literal["centred", "raw", "vector"],
        o.option("--rows", "Channels minus their means, raw channels, or one vector an image."),
    ] = "centred",
    *,
    data: DataOptions,
    out: Out,
) -> None:
    """Which earlier layers predict a layer's attention? (Fig. 11)"""
    o.check_source(ckpts, captures, data, {"--points": points, "--hidden": hidden or None})
    from cli.common.inputs import open_each

    everyone = open_each(ckpts or [], data)
    from cli.analyses import gini  # late: it draws

    sources = [gini.of_network(each, gini.hidden_points(each, points) if hidden else points) for each in everyone]
    sources += map(gini.of_store, captures or ())
    gini.report(sources, out, rows=rows, seed=data.seed)


@command(
    app,
    "dia-analyze gradients --ckpt digits-resnet56-se --images 256",
    "dia-analyze gradients --model cifar_resnet56 --set skip=false --data digits",
)
def gradients(
    networks: NetworkOptions,
    runs: Annotated[
        list[Path] | None,
        o.option("--run", "The folder of a dia-train fit run; several times.", check=o.existing("run")),
    ] = None,
    every_epoch: Annotated[
        bool, o.option("--every-epoch", "All epochs that the runs kept (dia-train fit --keep-every).")
    ] = False,
    points: Annotated[list[str] | None, o.option("--points", "Modules that count as stages, such as 'layer*'.")] = None,
    per_block: Annotated[bool, o.option("--per-block", "Also at the output of every block.")] = False,
    mode: Annotated[
        Literal["training", "evaluation"],
        o.option("--mode", "Batch norm with the batch's statistics, or with its stored ones."),
    ] = "training",
    draws: Annotated[int, o.option("--draws", "Seeds of random weights for --model, from --seed on.", min=1)] = 5,
    *,
    data: MeasuredImages,
    out: Out,
) -> None:
    """Where do gradients vanish or explode? The gradient at each stage's output. (Fig. 13)"""
    from cli.common.images import select_labelled
    from cli.common.networks import candidates, run_files

    compared = candidates(networks, run_files(runs or [], every_epoch))
    images, fresh = select_labelled(data, compared[0].read(), data.image_size)
    from cli.analyses import gradients  # late: it draws

    measure = gradients.Measurement(points, per_block, mode, draws, fresh)
    gradients.report(compared, images, measure, out)


@command(app, "dia-analyze cost --model cifar_resnet20_se --model cifar_resnet20_dia_lstm")
def cost(
    networks: NetworkOptions,
    classes: Annotated[int, o.option("--classes", "Classes of the networks of --model.", min=1)] = 100,
    image_size: Annotated[int, o.option("--image-size", "Pixels, for the networks of --model.", min=8)] = 32,
    rounds: Annotated[int, o.option("--rounds", "How many times each network is timed; 6 or more.", min=6)] = 20,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 32,
    *,
    out: Out,
) -> None:
    """What does attention cost? Parameters, FLOPs, and time beside the backbone without it. (Section VI-B1)"""
    from cli.common.networks import candidates

    compared = candidates(networks, tasks=("classification", "detection"))
    from cli.analyses import cost  # late: it draws

    how = {"classes": classes, "image_size": image_size, "batch_size": batch_size, "rounds": rounds}
    cost.report(compared, out, **how, device=device, seed=seed)


@command(app, "dia-analyze tables --runs runs")
def tables(
    runs: Runs,
    out: Annotated[Path | None, o.option("--out", "Folder for the tables as files; by default none.")] = None,
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
    ckpts: o.CkptsNeeded,
    xray: Annotated[bool, o.option("--xray", "Instead, the page on chest X-ray networks.")] = False,
    masks: Annotated[
        Path | None,
        o.option(
            "--masks",
            "Lung masks for --xray: PNG files named as the images; else fixed regions.",
            check=o.existing("masks"),
        ),
    ] = None,
    data: DataOptions = FEWER_AT_ONCE,
    out: Annotated[Path | None, o.option("--out", "The page to write; by default one in dia-out/.")] = None,
    overwrite: Annotated[bool, o.option("--overwrite", "Replace an existing page.")] = False,
) -> None:
    """One self-contained HTML page with all analyses of some networks, or on chest X-ray networks (--xray)."""
    if masks is not None and not xray:
        raise typer.BadParameter("only with --xray: the page on chest X-ray networks shows them", param_hint="--masks")
    from cli.common.inputs import open_networks

    everyone = open_networks(ckpts, data)
    if xray:
        from cli.pages.xray_report import write_xray_report

        write_xray_report(ckpts, everyone, masks, data, Out(out, overwrite))
    else:
        from cli.pages.report import write_report

        write_report(ckpts, everyone, data, Out(out, overwrite))


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
