"""Maps at another size."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float


def upsample(maps: Float[np.ndarray, "image row column"], size: tuple[int, int]) -> Float[np.ndarray, "image h w"]:
    """Maps at another size (height, width), bilinearly between the centres of their positions."""
    wide = F.interpolate(torch.from_numpy(maps)[:, None], size, mode="bilinear", align_corners=False)
    return wide[:, 0].numpy()
