"""U-ViT (Bao et al. 2023): a vision transformer with long skip connections that predicts noise."""

from dataclasses import dataclass
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import ChannelAttention
from dia_models.backbones.stage import AttentionPlan, Walk
from dia_models.backbones.tokens import EXTRA, Tokens, check_image_size, check_images, scale_tokens
from dia_models.spec import Network

PATCH = 2
MLP_RATIO = 4
LONGEST_PERIOD = 10_000


@dataclass(frozen=True)
class UViTSize:
    """How wide the tokens are, into how many heads self-attention is divided, and the blocks before the middle one.

    The standard deviations are those that the weights and the positions' embeddings start with.
    """

    width: int
    heads: int
    half: int
    weight_std: float = 0.02
    position_std: float = 0.02


SMALL = UViTSize(512, 8, 6)  # U-ViT-S/2
TINY = UViTSize(128, 4, 1, 0.06, 0.5)  # ours, for images of 8 to 16 pixels; it starts further from doing nothing


class SelfAttention(nn.Module):
    """Softmax attention among tokens; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tokens) -> Tokens:
        """Mix the tokens."""
        queries, keys, values = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """Two linear layers with GELU in between."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tokens) -> Tokens:
        """Change each token by itself."""
        changed: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return changed


class UViTBlock(nn.Module):
    """x + self-attention(LN x), then x + MLP(attention(LN x)); a hook on the submodule `output` sees the result.

    A block with a long skip first reduces x and the skipped tokens, side by side, to one width.
    """

    def __init__(self, size: UViTSize, long_skip: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width)
        self.attn = SelfAttention(size.width, size.heads)
        self.norm2 = nn.LayerNorm(size.width)
        self.mlp = MLP(size.width)
        self.skip_linear = nn.Linear(2 * size.width, size.width) if long_skip else None
        self.output = nn.Identity()

    def forward(
        self,
        tokens: Tokens,
        attention: ChannelAttention | None = None,
        state: Any = None,
        skipped: Tokens | None = None,
    ) -> tuple[Tokens, Any]:
        """Give the block's output and the attention's new state."""
        if self.skip_linear is not None:
            assert skipped is not None
            tokens = self.skip_linear(torch.cat([tokens, skipped], dim=2))
        tokens = tokens + self.attn(self.norm1(tokens))
        normed = self.norm2(tokens)
        if attention is not None:
            normed, state = scale_tokens(attention, normed, state)
        return self.output(tokens + self.mlp(normed)), state


class PatchEmbedding(nn.Module):
    """A convolution that sees each patch once."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, PATCH)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch token feature"]:
        """A token per patch, row by row."""
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class UViT(Network):
    """Takes noisy images (batch, in_channels, image_size, image_size) and times (batch), gives the predicted noise.

    Patches have 2x2 pixels. The parts are called as in the published code, so that its weights load as they are
    (`load_backbone`). All blocks have one width and are one stage: `attention` serves them in order, whatever the long
    skips do.
    """

    def __init__(self, plan: AttentionPlan, num_classes: None, in_channels: int, *, size: UViTSize, image_size: int):
        super().__init__()
        width, blocks = size.width, 2 * size.half + 1
        plan.check([blocks])
        self.image_size = image_size
        self.patch_embed = PatchEmbedding(in_channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, check_image_size(image_size, PATCH), width))
        self.in_blocks = nn.ModuleList(UViTBlock(size) for _ in range(size.half))
        self.mid_block = UViTBlock(size)
        self.out_blocks = nn.ModuleList(UViTBlock(size, long_skip=True) for _ in range(size.half))
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, PATCH**2 * in_channels)
        self.final_layer = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self._start(size)
        self.attention, self.connected = plan.layers(1, blocks, width)

    def _start(self, size: UViTSize) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=size.position_std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=size.weight_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, images: Float[Tensor, "batch channel height width"], times: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Give the noise in each image. Raises ModelInputError for images of another size.

        Diffusion times from 0 to 1 are given as 999 times their value, as in the published code.
        """
        check_images(images, self.image_size)
        patches = self.patch_embed(images)
        tokens = torch.cat([time_embedding(times, patches.shape[2])[:, None].to(images.dtype), patches], dim=1)
        tokens = self.norm(self._blocks(tokens + self.pos_embed))
        noise: Tensor = self.final_layer(_picture(self.decoder_pred(tokens)[:, EXTRA:], images.shape))
        return noise

    def _blocks(self, tokens: Tokens) -> Tokens:
        walk, skipped = Walk(self.attention, self.connected), []
        for block in self.in_blocks:
            tokens = walk(block, tokens)
            skipped.append(tokens)
        tokens = walk(self.mid_block, tokens)
        for block in self.out_blocks:
            tokens = walk(block, tokens, skipped.pop())
        return tokens


def time_embedding(times: Float[Tensor, "batch"], width: int) -> Float[Tensor, "batch feature"]:
    """Cosines, then sines, of the time at frequencies from 1 down to 1/10,000."""
    steps = torch.arange(width // 2, dtype=torch.float32, device=times.device) / (width // 2)
    angles = times[:, None].float() * torch.exp(-log(LONGEST_PERIOD) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _picture(
    patches: Float[Tensor, "batch token pixel"], shape: torch.Size
) -> Float[Tensor, "batch channel height width"]:
    """Put patches, each listed by row, column and channel, where they belong."""
    batch, channels, height, width = shape
    pixels = patches.reshape(batch, height // PATCH, width // PATCH, PATCH, PATCH, channels)
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(shape)
