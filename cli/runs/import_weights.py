"""dia-train import."""

from pathlib import Path

from cli.common.console import note, say, say_json
from cli.common.publish import Out
from dia_analysis.results.output import writing
from dia_models import CheckpointInfo, save_checkpoint
from dia_models.checkpoints.public_weights import build_public
from dia_models.checkpoints.state_dict import read_state_dict
from dia_models.data import CIFAR_MEAN, CIFAR_STD, Preprocessing
from dia_models.runs.result import versions

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def import_weights(source: Path, model: str, out: Out) -> None:
    """Write a public state dict of a CIFAR network as a checkpoint of ours."""
    with out.file("", "") as path:
        network = build_public(model, read_state_dict(source, "source").tensors)
        classes = len(network.state_dict()["classifier.weight"])
        info = CheckpointInfo(
            model=network.spec,
            data=f"cifar{classes}",
            classes=CIFAR10 if classes == 10 else tuple(map(str, range(classes))),
            preprocessing=Preprocessing(height=32, width=32, mean=CIFAR_MEAN, std=CIFAR_STD),
            recipe={"imported_from": source.name},
            versions=versions(),
        )
        with writing(path):
            save_checkpoint(path, network, info)
    if out.as_json:
        say_json({"schema": "dia.import/1", "model": model, "num_classes": classes, "checkpoint": str(path)})
    else:
        say(f"{source.name} is now {path}, a {model} of {classes} classes")
    note(f"it expects {info.data} images normalised as in the public code; test it: dia-train eval --ckpt {path}")
