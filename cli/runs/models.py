"""dia-train models and dia-train recipes."""

from typing import Any

from cli.common.console import say, say_json
from dia_models import Checkpoint, ModelInputError, ModelSpec, list_checkpoints, list_models
from dia_models.attention import attention_rows, attention_table
from dia_models.audit.counting import ParameterCounter
from dia_models.audit.published import audit, audit_table
from dia_models.factory import task_of
from dia_models.sweeps.sweep import SCALES, Sweep, list_sweeps, load_sweep
from dia_models.training.recipe import list_recipes, load_recipe

WIDTH = 256  # channels of ResNet164's last stage


def print_models(pattern: str, num_classes: int, *, as_json: bool) -> None:
    """Print the names that match, with trainable parameters; the networks are never given memory."""
    names = list_models(pattern)
    if not names:
        raise ModelInputError(
            "pattern", f"no network is called {pattern!r}; dia-train models lists all {len(list_models())}"
        )
    count = ParameterCounter()
    if as_json:
        models = [{"name": name, "parameters": count(_spec(name, num_classes))} for name in names]
        say_json({"schema": "dia.models/1", "num_classes": num_classes, "models": models})
        return
    width = max(map(len, names))
    say(f"{'model':<{width}}  parameters ({num_classes} classes)")
    for name in names:
        say(f"{name:<{width}}  {count(_spec(name, num_classes)):>12,}")


def print_bundled(*, as_json: bool) -> None:
    """Print the checkpoints that come with the package: network, data, and accuracy on all of its test images."""
    found = {name: Checkpoint.read(name).info for name in list_checkpoints()}
    if as_json:
        checkpoints = [
            {"name": name, "network": info.model.name, "data": info.data, "seed": info.seed, **info.metrics}
            for name, info in found.items()
        ]
        say_json({"schema": "dia.checkpoints/1", "checkpoints": checkpoints})
        return
    rows = [
        (name, info.model.name, info.data, f"{info.metrics['test_accuracy']:.2%}", str(info.seed))
        for name, info in found.items()
    ]
    say("Trained networks that come with the package, by name for --ckpt (MODELS.md says how they were trained):")
    _print_columns([("name", "network", "data", "test accuracy", "seed"), *rows])


def print_attention(*, as_json: bool) -> None:
    """Print the attention modules as a Markdown table."""
    if as_json:
        say_json({"schema": "dia.attention-modules/1", "channels": WIDTH, "modules": attention_rows(WIDTH)})
    else:
        say(attention_table(WIDTH))


def print_audit(*, as_json: bool) -> None:
    """Print every parameter count of the paper beside ours."""
    verdicts = audit()
    if as_json:
        say_json({"schema": "dia.audit/1", "entries": [verdict.to_dict() for verdict in verdicts]})
    else:
        say(audit_table(verdicts))


def print_recipes(*, as_json: bool) -> None:
    """Print every recipe with its fields, then every sweep with its runs at both scales."""
    recipes = {name: load_recipe(name).model_dump(exclude_defaults=True) for name in list_recipes()}
    sweeps = [load_sweep(name) for name in list_sweeps()]
    if as_json:
        say_json({"schema": "dia.recipes/1", "recipes": recipes, "sweeps": [s.model_dump() for s in sweeps]})
        return
    say("Recipes (dia-train fit --recipe NAME):")
    for name, fields in recipes.items():
        say(f"  {name}: {', '.join(f'{key}={_as_set(value)}' for key, value in fields.items())}")
    for scale in SCALES:
        say(f"\nSweeps (dia-train sweep NAME --scale {scale}):")
        _print_columns([_COLUMNS, *(_sweep_row(each, scale) for each in sweeps)])
    say("\nHours are estimates for all runs, from the number of operations: see docs/sweeps.md.")


def _as_set(value: Any) -> str:
    """A field's value as --set takes it."""
    return f"[{','.join(f'{each:.6g}' for each in value)}]" if isinstance(value, tuple) else str(value)


_COLUMNS = ("name", "source", "data", "networks", "recipe", "seeds", "runs", "hours on an H100", "hours on two cores")


def _sweep_row(sweep: Sweep, scale: str) -> tuple[str, ...]:
    size = sweep.scale(scale)
    kinds = len(sweep.variants_at(scale))
    networks = f"{', '.join(size.backbones)} x {kinds}"
    runs = len(size.data) * len(size.backbones) * kinds * size.seeds
    hours = (f"{size.hours[machine]:,.7g}" if machine in size.hours else "" for machine in ("H100", "two cores"))
    recipes = ", ".join(dict.fromkeys(size.backbones.values()))
    return (sweep.name, sweep.source, ", ".join(size.data), networks, recipes, str(size.seeds), str(runs), *hours)


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _spec(name: str, num_classes: int) -> ModelSpec:
    classes = None if task_of(name) == "noise prediction" else num_classes
    return ModelSpec(name=name, num_classes=classes, in_channels=3)
