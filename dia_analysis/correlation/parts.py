"""The parts of r, from sums over images: what is static, what depends on the image; and shares of the maps' variance.

Every number is worked out on all images and on all but each group, along the first axis, for the jackknife.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from dia_analysis.correlation.sums import DeviationTotals, DirectionTotals, MapTotals
from dia_analysis.statistics.summary import mean_along

Some = Float[np.ndarray, "_"]
Matrices = Float[np.ndarray, "_ layer layer"]
ByLayer = Float[np.ndarray, "_ layer"]


@dataclass(frozen=True)
class Parts:
    """By name, what holds of two layers (`matrices`), its mean over pairs (`means`), and what holds of one layer.

    The first entry of each is on all images, the others on all but one group; there is only the first where sums by
    group would take too much memory. NaN where not defined. `channel_std` (layer, element) is the standard deviation
    over images (n - 1), `varies` whether it is more than rounding.
    """

    images: int
    sizes: Int64[np.ndarray, "group"]
    matrices: dict[str, Matrices]
    means: dict[str, Some]
    by_layer: dict[str, ByLayer]
    mean_map: Float[np.ndarray, "layer element"]
    channel_std: Float[np.ndarray, "layer element"]
    varies: np.ndarray
    rounding_share: Float[np.ndarray, "layer"]


def find_parts(first: MapTotals, r: DirectionTotals, second: DeviationTotals, smallest: float) -> Parts:
    """The parts of the stage whose sums these are; `smallest` is a deviation's least length, in lengths of the map."""
    with np.errstate(divide="ignore", invalid="ignore"):
        images, mean = leave_out(first.used), first.mean()
        variance = _Variance.of(images, mean, second)
        matrices = {"mean_r_image": leave_out(second.r) / leave_out(second.with_r), **_pooled(variance, smallest)}
        means = {name: over_pairs(values) for name, values in matrices.items()}
        means["mean_r_image"] = over_images_and_pairs(second.r, second.with_r)
        for name, values in zip(("mean_r", "mean_r_other_image"), same_and_other_image(r), strict=True):
            matrices[name], means[name] = values, over_pairs(values)
        means["mean_r"] = over_images_and_pairs(r.products, r.with_product)
        std, varies = _spread(variance, second, smallest)
        if len(second.by_element):
            by_channel = _by_channel(variance, second, varies)
            matrices |= by_channel
            means |= {name: over_pairs(values) for name, values in by_channel.items()}
        shares = variance.shares()
        means |= {name: mean_along(values, 1) for name, values in shares.items()}
        return Parts(
            int(images[0]),
            first.used,
            matrices,
            means,
            shares,
            mean,
            std,
            varies,
            _rounding(mean, smallest) / variance.rest[0],
        )


def leave_out(sums: np.ndarray) -> np.ndarray:
    """Sums over all groups, then over all but each; of sums that are not by group the first alone."""
    whole: np.ndarray = sums.sum(0, keepdims=True)
    return whole if len(sums) == 1 else np.concatenate([whole, whole - sums])


@dataclass(frozen=True)
class _Variance:
    """Variance over images and elements, split: `static` of the mean maps and `image` of the deviations (with every
    other layer: covariance), both over elements, and `gain` of the means over elements.
    """

    images: Float[np.ndarray, "_"]
    shift: Float[np.ndarray, "_ layer element"]
    static: Matrices
    image: Matrices
    gain: ByLayer
    squares: Float[np.ndarray, "layer"]
    lengths: ByLayer

    @classmethod
    def of(cls, images: np.ndarray, mean: np.ndarray, sums: DeviationTotals) -> "_Variance":
        kept = len(leave_out(sums.maps))
        count = images[:kept].astype(np.float64)
        shift = leave_out(sums.maps) / count[:, None, None]
        maps, elements = mean + shift, mean.shape[1]
        products = leave_out(sums.products)[:kept] / count[:, None, None] / elements
        gains = leave_out(sums.gains)[:kept] / count[:, None] - shift.mean(2) ** 2
        squares = sums.squares.mean(1) / max(count[0], 1)
        lengths = np.square(maps).mean(2)
        return cls(count, shift, _covariance(maps), products - _covariance(shift), gains, squares, lengths)

    @property
    def channel(self) -> ByLayer:
        return _diagonal(self.static)

    @property
    def rest(self) -> ByLayer:
        return _diagonal(self.image).clip(0)

    def shares(self) -> dict[str, ByLayer]:
        """Of each layer's variance; the first three add up to 1."""
        gain = self.gain.clip(0)
        total = self.channel + gain + self.rest
        return {
            "channel_share": self.channel / total,
            "gain_share": gain / total,
            "image_share": self.rest / total,
            "static_share": self.channel / (self.channel + self.rest),
        }


def same_and_other_image(sums: DirectionTotals) -> tuple[Matrices, Matrices]:
    """The mean likeness of two layers over images, and that of one's map with the other's of another image.

    The second is the mean over all ordered pairs of different images. In a random order of the images that leaves none
    in its place, each such pair is equally likely, so this is the exact expectation of the mean likeness over such
    orders, without the scatter of a single one and with no seed. Where a likeness is undefined, sums and counts of
    the defined ones are expectations, and their ratio is given.
    """
    units, products, both = leave_out(sums.units), leave_out(sums.products), leave_out(sums.with_product)
    kept, count = len(units), leave_out(sums.with_unit)
    others = units @ units.swapaxes(1, 2) - products[:kept]
    pairs = (count[:, :, None] * count[:, None, :] - both)[:kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        return products / both, others / pairs


def over_images_and_pairs(sums: Matrices, counts: np.ndarray) -> Some:
    """The mean over all images and pairs of layers for which a number is defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: np.ndarray = _upper(leave_out(sums)).sum(1) / _upper(leave_out(counts)).sum(1)
    return mean


def _pooled(variance: _Variance, smallest: float) -> dict[str, Matrices]:
    whole = variance.static + variance.image
    scale = _scale(whole, variance.squares[None] * smallest**2)
    return {
        "pooled_r": whole / scale,
        "r_from_static": variance.static / scale,
        "r_from_image": variance.image / scale,
        "mean_r_static": variance.static / _scale(variance.static, variance.lengths * smallest**2),
    }


def _spread(
    variance: _Variance, sums: DeviationTotals, smallest: float
) -> tuple[Float[np.ndarray, "layer element"], np.ndarray]:
    """Each element's standard deviation over images, and whether it is more than the rounding of its values."""
    count = variance.images[0]
    if len(sums.by_element):
        squares = np.diagonal(sums.by_element.sum(0), axis1=1, axis2=2).T - count * variance.shift[0] ** 2
    else:
        return np.full(sums.squares.shape, np.nan), np.ones(sums.squares.shape, bool)
    squares = squares.clip(0)
    std = np.sqrt(squares / (count - 1)) if count > 1 else np.full(squares.shape, np.nan)
    return std, squares > smallest**2 * sums.squares


def _by_channel(variance: _Variance, sums: DeviationTotals, varies: np.ndarray) -> dict[str, Matrices]:
    """Per element over images, the mean over elements that vary in both layers: signed and absolute."""
    products = leave_out(sums.by_element)
    kept = min(len(products), len(variance.shift))
    shift = variance.shift[:kept].swapaxes(1, 2)
    products = products[:kept] / variance.images[:kept, None, None, None]
    products -= shift[..., :, None] * shift[..., None, :]
    spread = np.sqrt(np.where(varies.T, np.diagonal(products, axis1=2, axis2=3), np.nan))
    products /= spread[..., :, None]
    products /= spread[..., None, :]
    return {"mean_r_channel": mean_along(products, 1), "mean_abs_r_channel": mean_along(np.abs(products), 1)}


def _covariance(maps: Float[np.ndarray, "_ layer element"]) -> Matrices:
    centered = maps - maps.mean(2, keepdims=True)
    found: np.ndarray = centered @ centered.swapaxes(1, 2) / maps.shape[2]
    return found


def _scale(covariance: Matrices, least: np.ndarray) -> Matrices:
    """The product of two layers' standard deviations, NaN where one is no more than rounding."""
    own = _diagonal(covariance)
    own = np.sqrt(np.where(own > least, own, np.nan))
    found: np.ndarray = own[:, :, None] * own[:, None, :]
    return found


def _rounding(mean: Float[np.ndarray, "layer element"], smallest: float) -> Float[np.ndarray, "layer"]:
    """The variance that rounding gives to values around these, in a type of `smallest` / 8 eps."""
    exponent = np.frexp(np.abs(mean))[1] - 1
    step = np.where(mean == 0, 0, np.ldexp(smallest / 8, exponent))
    found: np.ndarray = np.square(step).mean(1) / 12
    return found


def _diagonal(matrices: Matrices) -> ByLayer:
    return np.diagonal(matrices, axis1=1, axis2=2)


def _upper(matrices: np.ndarray) -> np.ndarray:
    rows, columns = np.triu_indices(matrices.shape[1], 1)
    upper: np.ndarray = matrices[:, rows, columns]
    return upper


def over_pairs(matrices: Matrices) -> Some:
    """The mean over the pairs of layers for which it is defined."""
    return mean_along(_upper(matrices), 1)
