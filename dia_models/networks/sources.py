"""Which source a network's name belongs to."""

from pathlib import Path

from dia_models.errors import ModelInputError, unknown
from dia_models.factory import LISTING, list_models, task_of
from dia_models.networks.code import CodeSource
from dia_models.networks.libraries import OwnSource, TimmSource, TorchvisionSource
from dia_models.networks.request import Source
from dia_models.user_code import is_user_code

OTHERS = "timm:NAME, torchvision:NAME, hf-hub:ORG/NAME, file.py:name, package.module:name"


def is_own(name: str) -> bool:
    """Whether a name is that of a network of this library, or of none."""
    return isinstance(find_source(name), OwnSource)


def find_source(name: str) -> Source:
    """The source of a network by its name. Raises ModelInputError for a name of no known form."""
    kind, _, rest = name.partition(":")
    if kind == "hf-hub" and rest:
        return TimmSource(name)
    if kind in ("timm", "torchvision") and rest:
        return TimmSource(rest) if kind == "timm" else TorchvisionSource(rest)
    if is_user_code(name):
        return CodeSource(name)
    if name.endswith(".py") or Path(name).suffix in (".pth", ".pt", ".ckpt"):
        what = "a file of weights" if not name.endswith(".py") else "a file"
        raise ModelInputError("model", f"{name} is {what}; accepted: a name that dia-train models lists, {OTHERS}")
    try:
        task_of(name)
    except ModelInputError as error:
        raise unknown("model", name, list_models(), listed_by=LISTING, also=OTHERS) from error
    return OwnSource(name)
