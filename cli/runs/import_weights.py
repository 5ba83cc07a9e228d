"""dia-train import."""

from pathlib import Path

from cli.common.console import note, show
from cli.common.publish import Out
from dia_analysis.results.output import writing
from dia_models import save_checkpoint
from dia_models.checkpoints.public_weights import public_checkpoint
from dia_models.runs.result import versions


def import_weights(source: Path, model: str, out: Out) -> None:
    """Write a public state dict of a CIFAR network as a checkpoint of ours."""
    with out.file("", "") as path:
        network, info = public_checkpoint(model, source, versions())
        with writing(path):
            save_checkpoint(path, network, info)
    classes = len(info.classes)
    document = {"schema": "dia.import/1", "model": model, "num_classes": classes, "checkpoint": str(path)}
    show(out.as_json, document, lambda: f"{source.name} is now {path}, a {model} of {classes} classes")
    note(f"it expects {info.data} images normalized as in the public code; test it: dia-train eval --ckpt {path}")
