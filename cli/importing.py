"""dia-train import."""

from pathlib import Path

from cli.console import note, say, say_json
from cli.publishing import Out
from dia_analysis.output import writing
from dia_models import CheckpointInfo, ModelInputError, create_model, save_checkpoint
from dia_models.data import CIFAR_MEAN, CIFAR_STD, Preprocessing
from dia_models.outside import load_outside, read_state_dict
from dia_models.run import versions

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSIFIERS = ("fc.weight", "output.weight", "classifier.weight")


def import_weights(source: Path, model: str, out: Out, *, as_json: bool) -> None:
    """Write a public state dict of a CIFAR network as a checkpoint of ours."""
    with out.file("", "") as path:
        state = read_state_dict(source)
        classifier = next((t for name, t in state.items() if name.endswith(CLASSIFIERS) and t.ndim == 2), None)
        if classifier is None:
            raise ModelInputError("source", f"{source} has no classifier; expected one of {', '.join(CLASSIFIERS)}")
        classes = len(classifier)
        network = create_model(model, num_classes=classes)
        load_outside(network, state)
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
    if as_json:
        say_json({"schema": "dia.import/1", "model": model, "num_classes": classes, "checkpoint": str(path)})
    else:
        say(f"{source.name} is now {path}, a {model} of {classes} classes")
    note(f"it expects {info.data} images normalised as in the public code; test it: dia-train eval --ckpt {path}")
