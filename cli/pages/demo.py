"""dia-analyze demo: the analyses on bundled networks and data, with a plain account of what came out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill

from cli.analyses import correlation, gradcam, gradients
from cli.common.console import say
from cli.common.images import EXPLAINED, select_labelled
from cli.common.inputs import Inputs, open_networks
from cli.common.networks import candidates
from cli.common.options import DataOptions, GradientOptions, NetworkOptions
from cli.common.publish import Found, Out
from cli.pages.demo_xrays import PICTURE as HEATMAPS
from cli.pages.demo_xrays import QUESTION as XRAYS
from cli.pages.demo_xrays import XRays
from cli.pages.report import analyze_networks
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.results.output import new_directory
from dia_analysis.results.provenance import versions
from figures.pages.measured import Effort
from figures.pages.report_page import QUESTIONS, ReportPage, Section

DATA = "digits"
TABLES, PAGE = "tables.txt", "report.html"
NETWORKS = ["digits-resnet56-se", "digits-resnet56-dia-lstm"]
WITHOUT_SKIP = ["cifar_resnet56", "cifar_resnet56_dia_lstm"]
GINI_IMAGES, GRADIENT_IMAGES = 60, 120
# Of importance, the finding says nothing of the untrained networks' centred rows.
EFFORT = Effort(importance=GINI_IMAGES, heatmaps=EXPLAINED, of_untrained=("vector",), trust=False, rounds=6)
INTRODUCTION = """Two networks that read chest X-rays, without attention and with DIA-LSTM; and two
trained on 8x8 digits: one squeeze-excitation module per layer (SE), and one
LSTM per stage that all its layers share (DIA-LSTM).
"""
WIDTH = 80  # columns of a terminal
PICTURES = {
    "ablation": "ablation/ablation.png",
    "gini": "gini/fig11-importance.png",
    "gradients": "gradients/fig13-distribution.png",
    "cost": "cost/cost-ratios.png",
}
NEXT = """What next
  Real images:        dia-analyze correlation --ckpt cifar10-resnet29-se --data cifar10 --data-dir FOLDER
  Your own images:    dia-analyze gradcam --ckpt cifar10-resnet29-se IMAGE...
  Your own network:   dia-train fit --model cifar_resnet29_dia_se --data folder:PATH --image-size 32
  Everything at once: dia-analyze report --ckpt RUN/model.safetensors
  Any torch network:  dia-analyze correlation --model net.py:Net --weights net.pth --data folder:PATH"""


def run_demo(out: Out, *, device: str, seed: int) -> None:
    """Analyse two networks trained on digits, one module per layer and DIA-LSTM; the tables and a page go to files."""
    with out.folder("demo") as taken:
        options = DataOptions(DATA, device=device, seed=seed, batch_size=128, workers=1)
        given = NetworkOptions(NETWORKS)
        everyone = open_networks(given, options)
        untrained = measure_gradients(options)
        page = analyze_networks(candidates(given), everyone, options, gradients=untrained, effort=EFFORT)
        page = replace(page, command="dia-analyze demo")
        xrays = XRays.measure(options)
        say(f"{INTRODUCTION}\n{account(page, xrays, taken.path)}")
        with taken.filled({"data": DATA, "seed": seed, "versions": versions()}) as folder:
            write(page, everyone, folder)
            xrays.write(folder)
            page.save(folder / PAGE)
    place = taken.path
    say(f"\nOpen {place / PAGE} first: it shows it all, with the paper's claims; the tables are in {place / TABLES}.")
    say(f"\n{NEXT}")


def account(page: ReportPage, xrays: XRays, place: Path) -> str:
    """What came out: for each question a sentence, and where its picture lies."""
    pictures = {"correlation": f"{next(iter(page.correlation.found))}/fig2-matrices.png"} | PICTURES
    said = page.headlines()
    parts = [_told(QUESTIONS[name], said[name], place / picture) for name, picture in pictures.items() if name in said]
    return "\n".join([_told(XRAYS, xrays.headline(), place / HEATMAPS), *parts])


def _told(question: str, sentence: str, picture: Path) -> str:
    text = fill(sentence, WIDTH, break_on_hyphens=False, initial_indent="  ", subsequent_indent="  ")
    return f"{question}\n{text}\n  picture: {picture}"


def measure_gradients(options: DataOptions) -> Section[BesidePlain]:
    """The gradients of two other networks, which have random weights and no skip connections."""
    images = select_labelled(replace(options, images=GRADIENT_IMAGES), DATA)
    compared = candidates(NetworkOptions(models=WITHOUT_SKIP, changes=["skip=false"]))
    result = gradients.measure(compared, images, GradientOptions())
    about = (
        "The gradient of the loss, summed over a batch, at each stage's output of two other networks, which have "
        f"random weights (from {GradientOptions.draws} seeds) and no skip connections, on {GRADIENT_IMAGES} images in "
        "one batch, in training mode."
    )
    models = " ".join(f"--model {name}" for name in WITHOUT_SKIP)
    command = f"dia-analyze gradients {models} --set skip=false --data {DATA} --images {GRADIENT_IMAGES}"
    findings = [("Untrained networks without skip connections", result.finding())]
    return Section(result, about, [f"{command} --seed {options.seed}"], findings)


def write(page: ReportPage, everyone: Sequence[Inputs], folder: Path) -> None:
    """Write what each analysis writes by itself, and all tables."""
    images = everyone[0].images
    parts = {name: correlation.found(both, images.names()) for name, both in page.correlation.found.items()}
    parts["ablation"] = Found.of(page.ablation.found, image_names=images.names)
    parts["gini"] = Found.of(page.gini.found, image_names=images.some(GINI_IMAGES).names)
    parts["gradients"] = Found.of(page.gradients.found, image_names=images.some(GRADIENT_IMAGES).names)
    parts["cost"] = Found.of(page.cost.found)
    parts["gradcam"] = gradcam.found(page.gradcam.found.found, [each.of(images.some(EXPLAINED)) for each in everyone])
    for name, found in parts.items():
        with new_directory(folder / name, found.about) as part:
            found.write(part)
    (folder / TABLES).write_text("\n".join(found.text for found in parts.values()) + "\n", encoding="utf-8")
