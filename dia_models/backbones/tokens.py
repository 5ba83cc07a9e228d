"""Attention on the tokens of a transformer block: between the second layer norm and the MLP (Fig. 7)."""

from math import isqrt
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dia_models.attention import AttentionKind, ChannelAttention
from dia_models.attention.constant_call import BoundCall
from dia_models.errors import ModelInputError

Tokens = Float[Tensor, "batch token channel"]
Grid = Float[Tensor, "batch channel row column"]

EXTRA = 1
"""Tokens that belong to no patch, before the others: the class token of a ViT, the time token of a U-ViT."""

LARGEST_IMAGE = 4096


def suits_tokens(kind: AttentionKind) -> bool:
    """Whether an attention scales whole channels; a token that belongs to no patch has no place in a spatial gate."""
    return issubclass(kind.build, ChannelAttention)


def scale_tokens(attention: ChannelAttention | BoundCall, tokens: Tokens, state: Any) -> tuple[Tokens, Any]:
    """Scale the channels of all tokens by one gate; give them and the state for the next call.

    The attention takes its means, deviations and extremes over all tokens; where positions matter (SPA's pyramid),
    over the square grid of patches.
    """
    features = tokens.transpose(1, 2)
    extracted = attention.extract(patch_grid(tokens)) if attention.positional else None
    scaled, state = attention(features.unsqueeze(3), None, state, extracted=extracted)
    return scaled.squeeze(3).transpose(1, 2), state


def patch_grid(tokens: Tokens) -> Grid:
    """The tokens of the patches as they lie in the image, which is square."""
    batch, count, channels = tokens.shape
    side = isqrt(count - EXTRA)
    return tokens[:, EXTRA:].transpose(1, 2).reshape(batch, channels, side, side)


def check_image_size(image_size: int, patch: int) -> int:
    """Give the number of tokens. Raises ModelInputError for a side that patches of this size do not fill."""
    if image_size % patch or not patch <= image_size <= LARGEST_IMAGE:
        raise ModelInputError(
            "set", f"image_size {image_size} must be a multiple of the patches' {patch}, up to {LARGEST_IMAGE}"
        )
    return EXTRA + (image_size // patch) ** 2


def check_images(images: Float[Tensor, "batch channel height width"], image_size: int) -> None:
    """Raise ModelInputError for images of another size: each position has a learned embedding."""
    height, width = images.shape[-2:]
    if (height, width) != (image_size, image_size):
        raise ModelInputError(
            "image_size",
            f"images of {height}x{width} given; this network takes {image_size}x{image_size}: "
            "scale them, or build it with another image_size",
        )
