"""dia-train share."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from cli.common.console import note, progress_bar, show
from cli.common.inputs import Inputs, open_one
from cli.common.options import DataOptions, NetworkOptions, ShareOptions
from cli.common.publish import Out, default_name
from cli.runs.fold import parts_of
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.paired import clopper_pearson, share_difference
from dia_models import ModelInputError, SharingReport, fit, save_checkpoint
from dia_models import share as share_attention
from dia_models.networks.folded_files import checkpoint_info, save_weights
from dia_models.runs.configure import fine_tuned
from dia_models.spec import Network
from dia_models.surgery.means import labelled_batches, right_answers

BEFORE, AVERAGED, FITTED = "individual", "shared, averaged", "shared, fitted"
Right = dict[str, np.ndarray]
"""For each network in words, whether it is right about each test image."""


@dataclass(frozen=True)
class Shared:
    """The network to be written, how it came about, and whether each network is right about each test image."""

    model: nn.Module
    chosen: str
    report: SharingReport
    right: Right


def share(networks: NetworkOptions, given: ShareOptions, options: DataOptions, out: Out) -> None:
    """Share the attention of one network, print what that does to the accuracy, and write the shared network."""
    inputs = open_one(networks, options)
    refuse_training(inputs, given.epochs)
    with out.file(default_name("share", [inputs.name], inputs.images.data), ".safetensors") as path:
        found = shared(inputs, given, options)
        save(path, found.model, inputs)
        show(out.as_json, _document(inputs, path, found), lambda: _text(found))
        tune = f"; fine-tune it: dia-train fit --from {path}" if isinstance(found.model, Network) else ""
        note(f"written to {path}: {found.chosen}{tune}")


def shared(inputs: Inputs, given: ShareOptions, options: DataOptions) -> Shared:
    """Average and fit; take what does better on validation images, and test all on test images."""
    fit_images, validation, test = parts_of(inputs, options)
    seen = [images for images, _ in inputs.of(fit_images).answered("images to fit to")]
    models = {BEFORE: inputs.model, AVERAGED: copy.deepcopy(inputs.model), FITTED: copy.deepcopy(inputs.model)}
    how: Any = {"modules": given.modules, "images": seen[0][:2]}
    reports = {
        AVERAGED: share_attention(models[AVERAGED], **how),
        FITTED: share_attention(models[FITTED], **how, fit_batches=seen),
    }
    chosen = _better(inputs, models, validation)
    right = {name: _right(inputs.of(test), model) for name, model in models.items()}
    if given.epochs:
        right |= tuned(inputs, models[chosen], given.epochs, options, test)
    return Shared(models[chosen], chosen, reports[chosen], right)


def refuse_training(inputs: Inputs, epochs: int) -> None:
    """Raise ModelInputError if what cannot be trained here is to be fine-tuned."""
    if epochs and inputs.network.checkpoint is None:
        raise ModelInputError("epochs", "only networks that dia-train fit wrote are trained here: give one with --ckpt")


def save(path: Path, model: nn.Module, inputs: Inputs) -> None:
    """Write the network: one of ours as a checkpoint, of any other the state dict under its own names."""
    if isinstance(model, Network):
        save_checkpoint(path, model, checkpoint_info(model, inputs.network, inputs.images.data))
    else:
        save_weights(path, model)


def _right(inputs: Inputs, model: nn.Module) -> np.ndarray:
    answered = labelled_batches(inputs.answered("test images"), "data")
    return right_answers(model, answered).numpy()


def _better(inputs: Inputs, candidates: dict[str, nn.Module], validation: Any) -> str:
    """Averaged or fitted: which of them is right more often about the validation images."""
    right = {name: _right(inputs.of(validation), candidates[name]).mean() for name in (FITTED, AVERAGED)}
    return max(right, key=lambda name: float(right[name]))


def tuned(inputs: Inputs, model: nn.Module, epochs: int, options: DataOptions, test: Any) -> Right:
    """The shared network and the individual one after as many epochs of fine-tuning, the same for both."""
    from dia_models import load
    from dia_models.training.progress import RunProgress

    assert inputs.network.checkpoint is not None
    right = {}
    with TemporaryDirectory() as folder:
        save(start := Path(folder) / "shared.safetensors", model, inputs)
        for what, checkpoint in (("individual", inputs.network.checkpoint.path), ("shared", start)):
            config = fine_tuned(str(checkpoint), settings={"epochs": epochs}, seed=options.seed)
            run, watch = Path(folder) / what, [RunProgress(progress_bar(), note)]
            fit(config, run, inputs.images.device, data_dir=options.data_dir, callbacks=watch)
            trained = load(run / "model.safetensors").to(inputs.images.device)
            right[f"{what}, fine-tuned {epochs}"] = _right(inputs.of(test), trained)
    return right


def _document(inputs: Inputs, path: Path, found: Shared) -> dict[str, Any]:
    report = found.report
    return {
        "schema": "dia.share/1",
        **inputs.provenance().to_dict(),
        "written": str(path),
        "chosen": found.chosen,
        "images": len(found.right[BEFORE]),
        "parameters_before": report.parameters_before,
        "parameters_after": report.parameters_after,
        "stages": [
            {"modules": list(stage.modules), "deviation": stage.deviation, "fit_error": stage.fit_error}
            for stage in report.stages
        ],
        "accuracies": [_accuracy(name, found.right) for name in found.right],
    }


def _accuracy(name: str, right: Right) -> dict[str, Any]:
    found, change = _estimates(name, right)
    return {
        "network": name,
        "accuracy": found.value,
        "accuracy_interval": [found.low, found.high],
        "change": change.value,
        "change_interval": [change.low, change.high],
    }


def _estimates(name: str, right: Right) -> tuple[Estimate, Estimate]:
    """The accuracy, and how it differs from the individual network's over the same images."""
    own, before = (right[each].astype(float) for each in (name, BEFORE))
    return clopper_pearson(own), share_difference(own - before)


def _text(found: Shared) -> str:
    heads = ("network", "accuracy", "95 %", "change", "95 %")
    return "\n\n".join([found.report.summary(), text_table([heads, *_rows(found.right)], left=[0])])


def _rows(right: Right) -> Sequence[tuple[str, ...]]:
    rows = []
    for name in right:
        found, change = _estimates(name, right)
        ends = [f"[{100 * one.low:+.1f}, {100 * one.high:+.1f}]" for one in (found, change)]
        rows.append((name, f"{100 * found.value:.1f}", ends[0].replace("+", ""), f"{100 * change.value:+.1f}", ends[1]))
    return rows
