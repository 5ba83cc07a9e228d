"""dia-train models and dia-train recipes."""

from collections.abc import Sequence
from textwrap import indent
from typing import Any

from cli.common.console import say, show
from dia_analysis.results.text_table import text_table
from dia_models import Checkpoint, ModelInputError, ModelSpec, list_checkpoints, list_models
from dia_models.attention import attention_rows, attention_table
from dia_models.audit.counting import ParameterCounter
from dia_models.audit.published import audit, audit_table
from dia_models.factory import task_of
from dia_models.sweeps.sweep import COLUMNS, SCALES, list_sweeps, load_sweep
from dia_models.training.recipe import list_recipes, load_recipe

WIDTH = 256  # channels of ResNet164's last stage
BUNDLED = "Trained networks that come with the package, by name for --ckpt (MODELS.md says how they were trained):"


def print_models(pattern: str, num_classes: int, *, as_json: bool) -> None:
    """Print the names that match, with trainable parameters; the networks are never given memory."""
    names, count = list_models(pattern), ParameterCounter()
    if not names:
        message = f"no network is called {pattern!r}; dia-train models lists all {len(list_models())}"
        raise ModelInputError("pattern", message)
    noise = {name for name in names if task_of(name) == "noise prediction"}
    specs = {name: ModelSpec(name=name, num_classes=None if name in noise else num_classes) for name in names}
    if as_json:
        models = [{"name": name, "parameters": count(spec)} for name, spec in specs.items()]
        show(True, {"schema": "dia.models/1", "num_classes": num_classes, "models": models}, str)
        return
    width = max(map(len, names))
    say(f"{'model':<{width}}  parameters ({num_classes} classes)")
    for name, spec in specs.items():
        say(f"{name:<{width}}  {count(spec):>12,}")


def print_bundled(*, as_json: bool) -> None:
    """Print the checkpoints that come with the package: network, data, and accuracy on all of its test images."""
    found = {name: Checkpoint.read(name).info for name in list_checkpoints()}
    checkpoints = [
        {"name": name, "network": info.model.name, "data": info.data, "seed": info.seed, **info.metrics}
        for name, info in found.items()
    ]
    rows = [
        (name, info.model.name, info.data, f"{info.metrics['test_accuracy']:.2%}", str(info.seed))
        for name, info in found.items()
    ]
    table = _columns([("name", "network", "data", "test accuracy", "seed"), *rows])
    show(as_json, {"schema": "dia.checkpoints/1", "checkpoints": checkpoints}, lambda: f"{BUNDLED}\n{table}")


def print_attention(*, as_json: bool) -> None:
    """Print the attention modules as a Markdown table."""
    document = {"schema": "dia.attention-modules/1", "channels": WIDTH, "modules": attention_rows(WIDTH)}
    show(as_json, document, lambda: attention_table(WIDTH))


def print_audit(*, as_json: bool) -> None:
    """Print every parameter count of the paper beside ours."""
    verdicts = audit()
    document = {"schema": "dia.audit/1", "entries": [verdict.to_dict() for verdict in verdicts]}
    show(as_json, document, lambda: audit_table(verdicts))


def print_recipes(*, as_json: bool) -> None:
    """Print every recipe with its fields, then every sweep with its runs at both scales."""
    recipes = {name: load_recipe(name).model_dump(exclude_defaults=True) for name in list_recipes()}
    sweeps = [load_sweep(name) for name in list_sweeps()]
    lines = ["Recipes (dia-train fit --recipe NAME):"]
    for name, fields in recipes.items():
        lines.append(f"  {name}: {', '.join(f'{key}={_as_set(value)}' for key, value in fields.items())}")
    for scale in SCALES:
        table = _columns([COLUMNS, *(sweep.row(scale) for sweep in sweeps)])
        lines += [f"\nSweeps (dia-train sweep NAME --scale {scale}):", table]
    lines.append("\nHours are estimates for all runs, from the number of operations: see docs/sweeps.md.")
    document = {"schema": "dia.recipes/1", "recipes": recipes, "sweeps": [sweep.model_dump() for sweep in sweeps]}
    show(as_json, document, lambda: "\n".join(lines))


def _as_set(value: Any) -> str:
    """A field's value as --set takes it."""
    return f"[{','.join(f'{each:.6g}' for each in value)}]" if isinstance(value, tuple) else str(value)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    return indent(text_table(rows, left=range(len(rows[0]))), "  ")
