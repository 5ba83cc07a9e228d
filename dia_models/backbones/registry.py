"""Which backbones there are, by name, with what each takes: options, attention, classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal

from dia_models.attention import AttentionKind, attention_kind, attention_names
from dia_models.backbones.cifar_preresnet import cifar_preresnet
from dia_models.backbones.cifar_resnet import cifar_resnet
from dia_models.backbones.cifar_resnext import cifar_resnext101_8x32
from dia_models.backbones.cifar_wrn import cifar_wrn
from dia_models.backbones.residual import BlockOptions
from dia_models.backbones.stage import AttentionPlan
from dia_models.backbones.tokens import suits_tokens
from dia_models.backbones.uvit import SMALL, TINY, UViT
from dia_models.spec import Network, Option

Task = Literal["classification", "detection", "noise prediction"]
DEFAULT_CLASSES: dict[Task, int | None] = {"classification": 10, "detection": 91, "noise prediction": None}


def anywhere(kind: AttentionKind) -> bool:
    """Feature maps take every attention."""
    return True


@dataclass(frozen=True)
class Backbone:
    """A family of networks: how its names look, how one is built, and the members that are listed.

    `build` takes a plan for the attention, the number of classes and of input channels, then the named parts of
    the pattern as whole numbers, and `options`, which holds their names and defaults.
    """

    pattern: str
    build: Callable[..., Network]
    listed: tuple[str, ...]
    options: dict[str, Option]
    suits: Callable[[AttentionKind], bool] = anywhere
    task: Task = "classification"

    def attention_names(self) -> list[str]:
        """The attention modules that it takes."""
        return [name for name in attention_names() if self.suits(attention_kind(name))]


def of_torchvision(module: str, name: str) -> Callable[..., Network]:
    """A builder whose module is imported when it is used: it needs torchvision, which takes as long as torch."""

    def build_with(*args: Any, **options: Any) -> Network:
        network: Network = getattr(import_module(f"dia_models.backbones.{module}"), name)(*args, **options)
        return network

    return build_with


def residual(build: Callable[..., Network]) -> Callable[..., Network]:
    """A builder that takes the block options one by one."""

    def build_with(
        plan: AttentionPlan, num_classes: int, in_channels: int, *, skip: bool, batch_norm: bool, **parts: int
    ) -> Network:
        options = BlockOptions(skip, batch_norm, plan.normalized_branch)
        return build(plan, options, num_classes, in_channels, **parts)

    return build_with


BLOCK_OPTIONS: dict[str, Option] = {"skip": True, "batch_norm": True}
DETECTOR_OPTIONS: dict[str, Option] = {"min_size": 800, "max_size": 1333, "from_scratch": False}
DEPTHS = (20, 29, 56, 83, 110, 164, 245, 326, 407)

BACKBONES = (
    Backbone(
        r"cifar_resnet(?P<depth>\d{1,6})",
        residual(cifar_resnet),
        tuple(f"cifar_resnet{depth}" for depth in DEPTHS),
        BLOCK_OPTIONS,
    ),
    Backbone(r"cifar_preresnet(?P<depth>\d{1,6})", residual(cifar_preresnet), ("cifar_preresnet164",), BLOCK_OPTIONS),
    Backbone("cifar_wrn52_4", residual(partial(cifar_wrn, depth=52, width=4)), ("cifar_wrn52_4",), BLOCK_OPTIONS),
    Backbone("cifar_resnext101_8x32", residual(cifar_resnext101_8x32), ("cifar_resnext101_8x32",), BLOCK_OPTIONS),
    Backbone(
        r"resnet(?P<depth>18|34|50|101)",
        residual(of_torchvision("resnet", "ImageNetResNet")),
        ("resnet18", "resnet34", "resnet50", "resnet101"),
        BLOCK_OPTIONS,
    ),
    *(
        Backbone(
            name,
            partial(of_torchvision("vit", "VisionTransformer"), width=width),
            (name,),
            {"image_size": 224},
            suits_tokens,
        )
        for name, width in (("vit_small_patch16", 384), ("vit_base_patch16", 768))
    ),
    *(
        Backbone(name, partial(UViT, size=size), (name,), {"image_size": side}, suits_tokens, "noise prediction")
        for name, size, side in (("uvit_small", SMALL, 32), ("uvit_tiny", TINY, 8))
    ),
    *(
        Backbone(
            rf"{name}_resnet(?P<depth>18|50|101)_fpn",
            of_torchvision("detectors", name),
            tuple(f"{name}_resnet{depth}_fpn" for depth in (18, 50, 101)),
            DETECTOR_OPTIONS,
            task="detection",
        )
        for name in ("fasterrcnn", "retinanet")
    ),
)
