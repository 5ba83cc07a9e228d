"""What networks carry with them of the images and the classes that they expect."""

from collections.abc import Callable
from importlib import import_module
from math import floor
from typing import Any, get_args

from torch import nn

from dia_models.data.framing import Interpolation, Scaling
from dia_models.networks.request import Record

DEFAULT_LABEL = "LABEL_0"  # what transformers calls a class without a name


def carried_record(model: nn.Module) -> Record:
    """The record of a network that timm made, the configuration of one of transformers, or of any other nothing."""
    if (found := timm_record(model)) is not None:
        return found
    if (found := _xray_record(model)) is not None:
        return found
    config = getattr(model, "config", None)
    labels = getattr(config, "id2label", None)
    if not isinstance(labels, dict):
        return Record("")
    size, names = getattr(config, "image_size", None), tuple(str(labels[number]) for number in sorted(labels))
    return Record(
        "the network's config",
        (size, size) if isinstance(size, int) else tuple(size) if size is not None and len(size) == 2 else None,
        channels=getattr(config, "num_channels", None),
        classes=None if DEFAULT_LABEL in names else names,
    )


def _xray_record(model: nn.Module) -> Record | None:
    """How torchxrayvision's networks take images: one channel, from -1024, black, to 1024, white."""
    names = getattr(model, "pathologies", None) or getattr(model, "targets", None)
    if not isinstance(names, list | tuple) or not hasattr(model, "op_threshs"):
        return None
    classes = tuple(str(name) or f"output {place}" for place, name in enumerate(names))
    size = int(getattr(model, "input_resolution", 224))
    return Record("torchxrayvision's range", (size, size), (0.5,), (1 / 2048,), 1, classes, separate=True)


def timm_record(model: nn.Module) -> Record | None:
    """What timm says of the published weights of a network's name; None if the network is none of timm's."""
    found: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(found, dict) or "input_size" not in found:
        return None
    channels, height, width = found["input_size"]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    classes, synsets = _timm_classes(model, found)
    mean, std = (tuple(found[name]) if found.get(name) else None for name in ("mean", "std"))
    return Record("timm's record", (size[0], size[1]), mean, std, channels, classes, synsets, _timm_scaling(found))


def _timm_scaling(found: Any) -> Callable[[tuple[int, int]], Scaling]:
    """How `timm.data.create_transform` scales images for evaluation."""
    listing: Any = import_module("timm.data")
    known = listing.resolve_data_config(pretrained_cfg=found)
    method = known["interpolation"] if known["interpolation"] in get_args(Interpolation) else "bilinear"
    fit: Any = {"squash": "stretch", "border": "inside"}.get(known["crop_mode"], "cover")

    def scaled(size: tuple[int, int]) -> Scaling:
        height, width = (floor(side / known["crop_pct"]) for side in size)
        return Scaling(height=height, width=width, fit=fit, interpolation=method)

    return scaled


def _timm_classes(model: nn.Module, found: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if listed := found.get("label_names"):
        return tuple(map(str, listed)), None
    listing: Any = import_module("timm.data")
    if not (subset := listing.infer_imagenet_subset(model)):
        return None, None
    info = listing.ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(info.num_classes())), tuple(info.label_names())
