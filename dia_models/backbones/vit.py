"""Vision transformers (Dosovitskiy et al. 2021), of torchvision's blocks and with its names."""

from collections import OrderedDict
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from dia_models.attention import ChannelAttention
from dia_models.attention.constant_call import BoundCall
from dia_models.backbones.stage import AttentionPlan
from dia_models.backbones.tokens import Tokens, check_image_size, check_images, scale_tokens
from dia_models.spec import Network

PATCH = 16
LAYERS = 12
HEAD_WIDTH = 64
MLP_RATIO = 4
EPSILON = 1e-6


class TokenBlock(EncoderBlock):  # type: ignore[misc]  # torchvision has no types
    """x + self-attention(LN x), then x + MLP(attention(LN x)); a hook on the submodule `output` sees the result."""

    def __init__(self, width: int):
        super().__init__(width // HEAD_WIDTH, width, MLP_RATIO * width, dropout=0.0, attention_dropout=0.0)
        self.output = nn.Identity()

    def forward(
        self, tokens: Tokens, attention: ChannelAttention | BoundCall | None = None, state: Any = None
    ) -> tuple[Tokens, Any]:
        """Give the block's output and the attention's new state."""
        normed = self.ln_1(tokens)
        mixed, _ = self.self_attention(normed, normed, normed, need_weights=False)
        tokens = tokens + mixed
        normed = self.ln_2(tokens)
        if attention is not None:
            normed, state = scale_tokens(attention, normed, state)
        return self.output(tokens + self.mlp(normed)), state


class Encoder(nn.Module):
    """Position embedding, one stage of blocks, layer norm."""

    def __init__(self, tokens: int, width: int, plan: AttentionPlan):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))
        names = [f"encoder_layer_{number}" for number in range(LAYERS)]
        self.layers = plan.stage(1, [TokenBlock(width) for _ in names], width, names)
        self.ln = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens: Tokens) -> Tokens:
        """Encode the tokens."""
        encoded: Tensor = self.ln(self.layers(tokens + self.pos_embedding))
        return encoded


class VisionTransformer(Network):
    """Takes images (batch, in_channels, image_size, image_size), gives logits (batch, num_classes).

    Twelve blocks on patches of 16x16 pixels: `width` 384 with 6 heads (small), 768 with 12 (base).
    The classifier starts at zero, as torchvision's does: the first training step changes it alone.
    """

    def __init__(self, plan: AttentionPlan, num_classes: int, in_channels: int, *, width: int, image_size: int):
        super().__init__()
        plan.check([LAYERS])
        tokens = check_image_size(image_size, PATCH)
        self.image_size = image_size
        self.conv_proj = nn.Conv2d(in_channels, width, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = Encoder(tokens, width, plan)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, num_classes)))
        nn.init.trunc_normal_(self.conv_proj.weight, std=sqrt(1 / (in_channels * PATCH**2)))
        for name, parameter in self.named_parameters():
            if name == "conv_proj.bias" or name.startswith("heads"):
                nn.init.zeros_(parameter)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Give the logits. Raises ModelInputError for images of another size."""
        check_images(images, self.image_size)
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        logits: Tensor = self.heads(self.encoder(tokens)[:, 0])
        return logits


_TIMM = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.": "conv_proj.",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
    "norm1.": "ln_1.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "norm2.": "ln_2.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}


def from_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of timm's `vit_small_patch16_*` or `vit_base_patch16_*` under the names they have here."""
    return {_rename(name): tensor for name, tensor in weights.items()}


def _rename(name: str) -> str:
    place = ""
    if name.startswith("blocks."):
        _, number, name = name.split(".", 2)
        place = f"encoder.layers.encoder_layer_{number}."
    theirs = next((start for start in _TIMM if name.startswith(start)), "")
    return place + _TIMM.get(theirs, "") + name.removeprefix(theirs)
