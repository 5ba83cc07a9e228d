"""Images for a pass that only has to show what a network does: random, of the network's own size."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError

SIZE = 64  # pixels, where the network says none
IMAGES = 2
KEYS = ("image_size", "img_size", "input_size")
HOLDERS = ("patch_embed", "config", "spec.options", "pretrained_cfg", "default_cfg")


def example_images(model: nn.Module, image_size: int | tuple[int, int] | None = None) -> Tensor:
    """Two random images (batch, channel, height, width), the same each time, on the network's device and in its type.

    `image_size` is a side or (height, width) in pixels; by default what the network says of itself, as timm's,
    torchvision's and transformers' do, else 64. The channels are those that the first layer takes.
    Raises AnalysisInputError for a network that has no convolution, and so takes no images.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if not isinstance(first, nn.Conv2d):
        raise AnalysisInputError("images", f"{type(model).__name__} starts with no 2-D convolution; give inputs")
    size = image_size or own_size(model) or SIZE
    height, width = (size, size) if isinstance(size, int) else size
    weight = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    drawn = torch.randn(IMAGES, first.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    return drawn.to(weight.device, weight.dtype if weight.is_floating_point() else torch.float32)


def own_size(model: nn.Module) -> tuple[int, int] | None:
    """The (height, width) in pixels that a network says it takes; None if it says nothing."""
    return next(filter(None, map(_pair, _said(model))), None)


def _said(model: nn.Module) -> Iterator[Any]:
    for holder in (model, *(_attribute(model, path) for path in HOLDERS)):
        yield from (holder.get(key) if isinstance(holder, dict) else getattr(holder, key, None) for key in KEYS)


def _attribute(model: nn.Module, path: str) -> Any:
    holder: Any = model
    for name in path.split("."):
        holder = getattr(holder, name, None)
    return holder


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size, size
    if isinstance(size, tuple | list) and len(size) in (2, 3) and all(isinstance(part, int) for part in size):
        return tuple(size[-2:])
    return None
