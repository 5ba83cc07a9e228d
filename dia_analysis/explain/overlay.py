"""A map drawn over its image: the warmer, the more speaks for the class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

from dia_analysis.explain.upsample import upsample

if TYPE_CHECKING:
    from dia_analysis.explain.results import GradCAMResult

SHORTER = 224  # pixels of an overlay's shorter side, at least
STRENGTH = 0.8  # how far the strongest heat covers the image
HEAT = colormaps["inferno"]
Picture = UInt8[np.ndarray, "height width 3"]
Large = UInt8[np.ndarray, "large_height large_width 3"]


def shared_peak(results: Sequence["GradCAMResult"]) -> float:
    """The largest value of all maps, where the shared scale ends; 1 if all maps are zero."""
    return max(float(result.cam_max.max()) for result in results) or 1.0


def overlay(picture: Picture, layer_map: Float[np.ndarray, "row column"], peak: float) -> Large:
    """A map on its image in gray: the warmer and the more opaque, the nearer to `peak`; without evidence it is clear.

    The image's pixels are repeated until its shorter side has at least 224.
    """
    large = _enlarged(picture)
    size = (large.shape[0], large.shape[1])
    value = np.clip(upsample(np.maximum(layer_map, 0)[None], size)[0] / peak, 0, 1)
    opacity = STRENGTH * _rise(value)[..., None]
    mixed = (1 - opacity) * _gray(large) / 255 + opacity * HEAT(value)[..., :3]
    return np.asarray(np.rint(255 * mixed), dtype=np.uint8)


def _enlarged(picture: Picture) -> Large:
    times = max(1, -(-SHORTER // min(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)


def _rise(value: np.ndarray) -> np.ndarray:
    """Opacity by value: a little evidence shows already, no evidence does not."""
    return np.asarray(np.sqrt(value))


def heat_on_gray() -> ListedColormap:
    """The colors as they look on middle gray, for the scale."""
    value = np.linspace(0, 1, 256)
    opacity = STRENGTH * _rise(value)[:, None]
    return ListedColormap((1 - opacity) * 0.5 + opacity * HEAT(value)[:, :3])


def _gray(picture: Picture) -> Picture:
    brightness = np.rint(picture @ np.array([0.299, 0.587, 0.114]))
    return np.asarray(brightness[..., None].repeat(3, -1), dtype=np.uint8)
