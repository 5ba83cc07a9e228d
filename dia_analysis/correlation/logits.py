"""How far do the logits of gates that a sigmoid puts out vary over images? Near 0 and 1 the gates hardly do."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric


class LogitSums(Metric):
    """Streams the standard deviation over images of log(x / (1 - x)), by layer and element, given the mean maps."""

    full_state_update = False
    images: Int64[Tensor, ""]
    finite: Int64[Tensor, "layer element"]
    sums: Float[Tensor, "layer element"]
    squares: Float[Tensor, "layer element"]

    def __init__(self, mean: Float[Tensor, "layer element"]):
        super().__init__()
        self.center = mean.logit().nan_to_num(0.0, 0.0, 0.0)  # near the logits, so that large ones cancel nothing
        self.add_state("images", torch.tensor(0), "sum")
        self.add_state("finite", torch.zeros(mean.shape, dtype=torch.int64), "sum")
        for name in ("sums", "squares"):
            self.add_state(name, torch.zeros(mean.shape, dtype=torch.float64), "sum")

    def update(self, maps: Float[Tensor, "image layer element"]) -> None:
        """Add some images; those on which a map is not finite are left out."""
        values = maps.double()
        logits = values[values.isfinite().all(2).all(1)].logit() - self.center
        finite = logits.isfinite()
        known = torch.where(finite, logits, 0)
        self.images += len(logits)
        self.finite += finite.sum(0)
        self.sums += known.sum(0)
        self.squares += known.square().sum(0)

    def compute(self) -> Float[Tensor, "layer element"]:
        """The standard deviation (n - 1); NaN of one image, and of elements that are 0 or 1 on some image."""
        variance = (self.squares - self.sums.square() / self.images) / (self.images - 1)
        return torch.where((self.finite == self.images) & (self.images > 1), variance.clamp_min(0).sqrt(), torch.nan)
