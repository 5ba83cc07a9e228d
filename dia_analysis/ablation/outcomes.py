"""What a network answers with its own maps and with others, image by image, and how the two differ."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dia_analysis.ablation.images import UNKNOWN
from dia_analysis.errors import AnalysisInputError
from dia_analysis.statistics.intervals import Estimate, Patients
from dia_analysis.statistics.paired import clopper_pearson, mean_difference, share_difference

NOTHING = -1  # the class of an answer that is not finite


@dataclass
class Answers:
    """Answers as they come in, batch by batch: the predicted class, the loss in nats, whether it is finite.

    `kl` is the divergence of these answers from those of the untouched network, KL(untouched || these), in nats.
    """

    predicted: list[Int64[Tensor, "image"]] = field(default_factory=list)
    loss: list[Float[Tensor, "image"]] = field(default_factory=list)
    kl: list[Float[Tensor, "image"]] = field(default_factory=list)

    def add(
        self,
        outputs: Float[Tensor, "image class"],
        labels: Int64[Tensor, "image"],
        untouched: Float[Tensor, "image class"],
    ) -> None:
        """Add what the network answered to a batch."""
        if (labels >= outputs.shape[1]).any():
            raise AnalysisInputError(
                "data", f"an image has class {int(labels.max())}, the network knows {outputs.shape[1]} (from 0)"
            )
        finite = outputs.isfinite().all(1)
        logs, before = outputs.double().log_softmax(1), untouched.double().log_softmax(1)
        self.predicted.append(outputs.argmax(1).where(finite, NOTHING))
        of_label = logs.gather(1, labels.clamp_min(0)[:, None])[:, 0]
        self.loss.append((-of_label).where(finite & (labels != UNKNOWN), torch.nan))
        self.kl.append((before.exp() * (before - logs)).sum(1).where(finite, torch.nan))

    def of(self, chosen: Bool[np.ndarray, "image"]) -> "AnswersByImage":
        """All of them together, of some of the images."""
        predicted, loss, kl = (torch.cat(part).numpy()[chosen] for part in (self.predicted, self.loss, self.kl))
        return AnswersByImage(predicted, loss, kl)


@dataclass(frozen=True)
class AnswersByImage:
    """What `Answers` holds, for all images."""

    predicted: Int64[np.ndarray, "image"]
    loss: Float[np.ndarray, "image"]
    kl: Float[np.ndarray, "image"]

    def right(self, labels: Int64[np.ndarray, "image"]) -> Float[np.ndarray, "known"]:
        """1 for each image of a known class that is given it, else 0; images of unknown classes are left out."""
        known = labels != UNKNOWN
        right: Float[np.ndarray, image] = (self.predicted[known] == labels[known]).astype(np.float64)
        return right


@dataclass(frozen=True)
class Scores:
    """How a network with other maps answers, and how much that differs from the untouched one, over the same images.

    Numbers over labels are NaN where no label is known. Several draws are averaged image by image first. `not_finite`
    counts the images whose answer was not finite in some draw: they count as changed and wrong, and have no loss.
    """

    accuracy: Estimate
    loss: Estimate
    accuracy_change: Estimate
    loss_change: Estimate
    changed: Estimate
    kl: Estimate
    not_finite: int


def score(
    draws: Sequence[AnswersByImage],
    untouched: AnswersByImage,
    labels: Int64[np.ndarray, "image"],
    patients: Patients | None = None,
) -> Scores:
    """Compare the answers of one or more draws with those of the untouched network; patients stay whole."""
    right = np.mean([one.right(labels) for one in draws], axis=0)
    loss, kl = (np.mean([getattr(one, name) for one in draws], axis=0) for name in ("loss", "kl"))
    changed = np.mean([one.predicted != untouched.predicted for one in draws], axis=0)
    known = labels != UNKNOWN
    of_known = patients and patients.of(known)
    return Scores(
        clopper_pearson(right, of_known),
        mean_difference(loss[known], of_known),
        share_difference(right - untouched.right(labels), of_known),
        mean_difference((loss - untouched.loss)[known], of_known),
        clopper_pearson(changed, patients),
        mean_difference(kl, patients),
        int(np.any([one.predicted == NOTHING for one in draws], axis=0).sum()),
    )
