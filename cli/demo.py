"""dia-analyze demo: the four analyses on bundled networks and data, with a plain account of what came out."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

from cli import correlation, gini, gradcam, gradients
from cli.console import say
from cli.inputs import Inputs, open_inputs
from cli.networks import candidates
from dia_analysis.output import check_free

DATA = "digits"
TABLES = "tables.txt"
NETWORKS = ("digits-resnet56-se", "digits-resnet56-dia-lstm")
GINI_IMAGES, GRADIENT_IMAGES = 60, 120
LAYER = "stages.1.blocks.5"  # whose maps are 4x4; the last block's are 2x2
NEXT = """What next
  Real images:        dia-analyze correlation --ckpt cifar10-resnet29-se --data cifar10 --data-dir FOLDER
  Your own images:    dia-analyze gradcam --ckpt cifar10-resnet29-se IMAGE...
  Your own network:   dia-train fit --model cifar_resnet29_dia_se --data folder:PATH --image-size 32
  Any torch network:  from dia_analysis import correlate_layers; print(correlate_layers(model, batches).summary())"""


def run_demo(out: Path, *, overwrite: bool, device: str, seed: int) -> None:
    """Analyse two networks trained on digits, one module per layer and DIA-LSTM; the tables go to a file."""
    folders = {name: out / name for name in (*NETWORKS, "gini", "gradients", "gradcam")}
    for folder in folders.values():
        check_free(folder, overwrite)
    analyses = (_correlation, _gini, _gradients, _gradcam)
    with redirect_stdout(StringIO()) as tables:
        findings = [analyse(folders, overwrite, device, seed) for analyse in analyses]
    (out / TABLES).write_text(tables.getvalue(), encoding="utf-8")
    say(
        "Two networks trained on 8x8 digits: one squeeze-excitation module per layer (SE), and one LSTM per stage\n"
        "that all its layers share (DIA-LSTM).\n"
    )
    say("\n\n".join(findings))
    say(f"\nFigures and numbers are in {out}/, the tables in {out / TABLES}.\n\n{NEXT}")


def _correlation(folders: dict[str, Path], overwrite: bool, device: str, seed: int) -> str:
    means: list[float] = []
    for name in NETWORKS:
        inputs = _inputs(name, None, device, seed)
        outcome = correlation.report(inputs, None, folders[name], overwrite=overwrite, as_json=False)
        for result in filter(None, (outcome.trained, outcome.untrained)):
            assert result.mean_r is not None
            means.append(result.mean_r)
    return (
        "Are the attention maps of different layers alike? Pearson r between two layers of a stage is on average\n"
        "{:.2f} with SE (untrained {:.2f}), {:.2f} with DIA-LSTM (untrained {:.2f}). The paper finds more than 0.85 "
        "with SE."
    ).format(*means)


def _gini(folders: dict[str, Path], overwrite: bool, device: str, seed: int) -> str:
    sources = [gini.of_network(_inputs(name, GINI_IMAGES, device, seed), None) for name in NETWORKS]
    results = gini.report(sources, folders["gini"], vector=False, seed=seed, overwrite=overwrite, as_json=False)
    shares = [np.nanmean([s.beyond_two_nearest().mean() for s in r.stages]) for r in results.values()]
    return (
        "Which earlier layers tell what a layer's attention will be? Of the importance, {:.0%} with\nSE and {:.0%} "
        "with DIA-LSTM lies beyond the two nearest layers. The paper finds more with DIA-LSTM."
    ).format(*shares)


def _gradients(folders: dict[str, Path], overwrite: bool, device: str, seed: int) -> str:
    images = gradients.open_labelled(
        DATA,
        None,
        GRADIENT_IMAGES,
        data_dir=None,
        image_size=None,
        device=device,
        batch_size=GRADIENT_IMAGES,
        workers=1,
        strict=False,
        seed=seed,
    )
    compared = candidates((), ("cifar_resnet56", "cifar_resnet56_dia_lstm"), ("skip=false",))
    result = gradients.report(
        compared, images, None, folders["gradients"], per_block=False, overwrite=overwrite, as_json=False
    )
    plain, shared = (network.decades for network in result.networks)
    return (
        "What happens to gradients without skip connections? In untrained networks the mean absolute gradient\n"
        f"changes by {plain:+.1f} decades from the last stage back to the first, with DIA-LSTM by {shared:+.1f}."
    )


def _gradcam(folders: dict[str, Path], overwrite: bool, device: str, seed: int) -> str:
    selection = gradcam.Selection((), DATA, None, None, 1, False)
    outcome = gradcam.report(
        NETWORKS,
        selection,
        gradcam.Explanation(layer=LAYER),
        trust=False,
        device=device,
        batch_size=32,
        seed=seed,
        out=folders["gradcam"],
        overwrite=overwrite,
        as_json=False,
    )
    first, second = (result.maps.reshape(len(result.maps), -1) for result in outcome.results)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True) if np.ptp(a) and np.ptp(b)]
    like = f"correlate at {np.mean(pairs):.2f}" if pairs else "cannot be compared: one of them is always empty"
    return (
        "What do they look at? See the heatmaps; add --trust to dia-analyze gradcam to learn whether to believe them.\n"
        f"The two networks' maps of the same image {like}."
    )


def _inputs(name: str, images: int | None, device: str, seed: int) -> Inputs:
    return open_inputs(
        name, DATA, images, data_dir=None, device=device, batch_size=128, workers=1, strict=False, seed=seed
    )
