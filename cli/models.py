"""dia-train models and dia-train recipes."""

import torch

from cli.console import say, say_json
from dia_models import create_model, list_models
from dia_models.errors import unknown
from dia_models.recipe import list_recipes, load_recipe


def print_models(pattern: str, num_classes: int, *, as_json: bool) -> None:
    """Print the names that match, with trainable parameters; the networks are never given memory."""
    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, list_models())
    counts = {name: _parameters(name, num_classes) for name in names}
    if as_json:
        models = [{"name": name, "parameters": count} for name, count in counts.items()]
        say_json({"schema": "dia.models/1", "num_classes": num_classes, "models": models})
        return
    width = max(map(len, names))
    say(f"{'model':<{width}}  parameters ({num_classes} classes)")
    for name, count in counts.items():
        say(f"{name:<{width}}  {count:>12,}")


def print_recipes() -> None:
    """Print every recipe with its fields."""
    for name in list_recipes():
        fields = load_recipe(name).model_dump(exclude_defaults=True)
        say(f"{name}: {', '.join(f'{key}={value}' for key, value in fields.items())}")


def _parameters(name: str, num_classes: int) -> int:
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
