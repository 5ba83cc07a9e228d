"""dia-train eval."""

from dataclasses import replace
from pathlib import Path

from cli.classes import class_numbers
from cli.console import note, say, say_json, tracked
from dia_models import Checkpoint
from dia_models.data import FileImages, open_data
from dia_models.device import choose_device
from dia_models.evaluation import evaluate
from dia_models.models import require_classifier


def evaluate_checkpoint(
    ckpt: str,
    data: str | None,
    *,
    as_json: bool,
    data_dir: Path | None,
    download: bool = False,
    device: str,
    batch_size: int,
    workers: int,
    strict: bool,
) -> None:
    """Test a checkpoint on all images of a data set's test part and print the scores."""
    checkpoint = Checkpoint.read(ckpt)
    require_classifier(checkpoint.info.model.name, "ckpt")
    info = checkpoint.info
    data = data or info.data
    source = open_data(
        data, "test" if data == info.data else "any", data_dir, workers=workers, strict=strict, download=download
    )
    labels = class_numbers(source, info.classes, data)
    where = choose_device(device)
    batches = source.batches(range(len(source)), batch_size, info.preprocessing.size, info.model.in_channels)
    relabelled = (replace(b, labels=labels[b.labels]) for b in tracked(batches, -(-len(source) // batch_size), "test"))
    result = evaluate(checkpoint.build().to(where), relabelled, info.preprocessing, len(info.classes), where)
    per_class = dict(zip(info.classes, result.per_class_accuracy, strict=True))
    if isinstance(source, FileImages):
        for name, reason in sorted(source.unreadable.items()):
            note(f"warning: skipped {name}: {reason}")
    if as_json:
        say_json(
            {
                "schema": "dia.eval/1",
                "checkpoint": checkpoint.name,
                "checkpoint_sha256": checkpoint.sha256,
                "data": data,
                "images": result.images,
                "accuracy": result.accuracy,
                "per_class_accuracy": per_class,
                "loss": result.loss,
            }
        )
        return
    say(
        f"{checkpoint.name} on {result.images} images of {data}: accuracy {result.accuracy:.2%}, loss {result.loss:.3f}"
    )
    for name, accuracy in per_class.items():
        say(f"  {name:<20} {'no images' if accuracy is None else f'{accuracy:.2%}'}")
