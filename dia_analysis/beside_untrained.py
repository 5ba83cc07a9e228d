"""What did training do to the correlation of a network's layers? The network beside an untrained copy of itself."""

from dataclasses import dataclass
from typing import Any

from dia_analysis.correlation import PAPER_MEAN_R, CorrelationResult
from dia_analysis.findings import HOLDS, Finding

PAPER = f"average r above {PAPER_MEAN_R} (Fig. 2: SE and ECA; ResNet164 on CIFAR-100, ResNet50 on ImageNet)"
HARDLY = 0.05  # a difference in r from which on we say that training changed it


@dataclass(frozen=True)
class BesideUntrained:
    """What was measured on a trained network and, unless its maps came from a store, on an untrained copy of it."""

    trained: CorrelationResult
    untrained: CorrelationResult | None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.correlation/1, with the untrained copy's and the paper's numbers besides."""
        other = self.untrained.to_dict() if self.untrained else {}
        copy = {key: value for key, value in other.items() if key in ("mean_r", "stages")}
        return {**self.trained.to_dict(), "untrained": copy or None, "paper_mean_r": PAPER_MEAN_R}

    @property
    def shared(self) -> bool:
        """Whether a module serves several layers."""
        return any(call for stage in self.trained.stages for _, call in stage.layers)

    def finding(self) -> Finding:
        """What came out, beside the paper's number."""
        r = self.trained.mean_r
        if r is None:
            text = "There is no defined correlation, so nothing can be said about shared attention."
            return Finding(text, "no number", PAPER, "inconclusive", "it takes two layers in a stage")
        text, ours = f"Mean r is {r:z.2f}{self._learned(r)}", f"{r:z.2f}"
        if self.shared:
            reason = (
                "here one module serves several layers, which makes their maps alike before any training, and the "
                "number is about one module per layer"
            )
            return Finding(text, ours, PAPER, "inconclusive", reason)
        if any(stage.kind == "self-attention" for stage in self.trained.stages):
            reason = "here the maps are of self-attention, and the number is about modules that scale channels"
            return Finding(text, ours, PAPER, "inconclusive", reason)
        return Finding(text, ours, PAPER, HOLDS[r >= PAPER_MEAN_R])

    def _learned(self, r: float) -> str:
        if self.untrained is None:
            return (
                ". A store holds no untrained copy of the network to compare with: correlation --ckpt tells what "
                "training did."
            )
        before = self.untrained.mean_r
        if before is None:
            return "; the same network untrained has none."
        verb = "raised" if r > before + HARDLY else "lowered" if r < before - HARDLY else "hardly changed"
        return f"; the same network untrained has {before:z.2f}, so training {verb} it."
