"""The attention modules that a network already has: ours, torchvision's, timm's, and those named by a pattern."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from torch import nn

from dia_models.attention import Attention
from dia_models.errors import ModelInputError


def existing_attention(model: nn.Module) -> dict[str, nn.Module]:
    """A network's attention modules by name: ours, torchvision's SqueezeExcitation, and those with a `gate`.

    The last are modules with parameters and a childless child `gate` that is an identity or some sigmoid, as all of
    timm's have (SEModule, SqueezeExcite, EcaModule, ...). What is inside an attention module is not listed again.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and _is_attention(module):
            found[name] = module
    return found


def matching_modules(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The modules whose names match a shell pattern. Raises ModelInputError if there is none."""
    found = {name: module for name, module in model.named_modules() if name and fnmatchcase(name, pattern)}
    if not found:
        raise ModelInputError(
            "modules",
            f"no module of {type(model).__name__} matches {pattern!r}; give a pattern such as 'layer*.se'",
        )
    return found


def _is_attention(module: nn.Module) -> bool:
    if isinstance(module, Attention) or _is_squeeze_excitation(module):
        return True
    return any(_is_gate(child) for child in _gates(module)) and next(module.parameters(), None) is not None


def _is_squeeze_excitation(module: nn.Module) -> bool:
    """Whether a module is torchvision's; told by name, as torchvision takes seconds to import."""
    kinds = (f"{kind.__module__}.{kind.__name__}" for kind in type(module).__mro__)
    return "torchvision.ops.misc.SqueezeExcitation" in kinds


def _gates(module: nn.Module) -> Iterator[nn.Module]:
    return (child for name, child in module.named_children() if name == "gate")


def _is_gate(module: nn.Module) -> bool:
    squashes = isinstance(module, nn.Identity) or "sigmoid" in type(module).__name__.lower()
    return squashes and next(module.children(), None) is None
