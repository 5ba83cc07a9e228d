"""A network that tells many findings, each present or not, on a data set's images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dia_models.classification.evaluated import Watch
from dia_models.data import ImageSource
from dia_models.data.labels import match_findings
from dia_models.errors import ModelInputError
from dia_models.networks.opened import OpenedNetwork
from dia_models.networks.outputs import scores_in
from dia_models.surgery.fuse import fuse_for_inference

SIGMOID, AS_THEY_ARE = "the sigmoid of the outputs", "the outputs, which are probabilities already"


@dataclass(frozen=True)
class EvaluatedFindings:
    """A network's scores for the findings that it and the data have; `groups` are the images' (patients), if known,
    and `grouping` says how.

    Labels are 1, 0, or NaN where it is not known. `scale` says what the scores are, `unmatched` what of the data or the
    network has no counterpart. `more` is what else was found, with a `to_dict` and a `summary` of its own.
    """

    network: OpenedNetwork
    data: str
    findings: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Float[Tensor, "image finding"]
    scores: Float[Tensor, "image finding"]
    scale: str
    unmatched: tuple[str, ...]
    grouping: str | None = None
    more: Any = None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def loss(self) -> float:
        """The mean binary cross-entropy of what is known, scores kept away from 0 and 1 by 1e-7."""
        known = ~self.labels.isnan()
        scores, labels = self.scores[known].clamp(1e-7, 1 - 1e-7), self.labels[known].double()
        return float(torch.nn.functional.binary_cross_entropy(scores, labels)) if known.any() else float("nan")

    def accuracies(self) -> dict[str, float | None]:
        """By finding, the share of the images on which its score is on the right side of 0.5."""
        known, right = ~self.labels.isnan(), (self.scores >= 0.5) == (self.labels > 0.5)
        return {
            name: float(right[known[:, i], i].double().mean()) if known[:, i].any() else None
            for i, name in enumerate(self.findings)
        }

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema; the accuracy is the mean over findings."""
        each = self.accuracies()
        known = [value for value in each.values() if value is not None]
        return {
            **self.network.origin(),
            "data": self.data,
            "images": len(self.names),
            "nonfinite": 0,
            "accuracy": sum(known) / len(known) if known else None,
            "per_class_accuracy": each,
            "loss": self.loss if known else None,
            **({} if self.more is None else self.more.to_dict()),
        }

    def summary(self) -> str:
        """In words."""
        head = f"{self.name} on {self.data}: loss {self.loss:.3f} (binary cross-entropy)"
        return "\n".join([head, *self.network.remarks(), *([] if self.more is None else [self.more.summary()])])

    @property
    def heads(self) -> list[str]:
        """What the columns of `rows` are called."""
        each = [f"{kind}_{name}" for kind in ("label", "score") for name in self.findings]
        return ["checkpoint", "path", "patient", *each]

    def rows(self) -> Iterator[list[Any]]:
        """A row per image: checkpoint, name, group (empty if not known), labels (empty if not known) and scores."""
        groups = self.groups or ("",) * len(self.names)
        for name, group, labels, scores in zip(
            self.names, groups, self.labels.tolist(), self.scores.tolist(), strict=True
        ):
            yield [self.name, name, group, *("" if mark != mark else int(mark) for mark in labels), *scores]


def evaluate_findings(
    network: OpenedNetwork,
    source: ImageSource,
    data: str,
    *,
    device: torch.device,
    batch_size: int = 256,
    watch: Watch = lambda batches, count, name: batches,
) -> EvaluatedFindings:
    """Score all images of a source whose labels are rows of 0 and 1; the arguments are those of `evaluate_classifier`.

    Outputs are taken for the findings of the same names. Scores are their sigmoid, or they themselves where the network
    gives probabilities.
    Raises ModelInputError for a network that gives no class scores or none that are finite, and if it knows no finding.
    """
    matched = match_findings(source, network.outputs, data)
    shown, model = network.preprocessing, network.model
    model = (fuse_for_inference(model) if network.spec is not None else model).to(device).eval()
    batches = source.batches(range(len(source)), batch_size, shown.framing, len(shown.mean))
    names: list[str] = []
    labels, outputs = [], []
    with torch.inference_mode():
        for batch in watch(batches, -(-len(source) // batch_size), network.name):
            names += batch.names
            labels.append(batch.labels[:, list(matched.columns)].float())
            outputs.append(_outputs(model(shown(batch.pixels.to(device))))[:, list(matched.outputs)].double().cpu())
    found = torch.cat(outputs)
    if nonfinite := int((~found.isfinite()).any(1).sum()):
        raise ModelInputError(
            "model", f"{network.name}: its outputs are not finite for {nonfinite} of {len(names)} images: it diverged"
        )
    within = network.gives_probabilities
    group_of = source.group_of
    return EvaluatedFindings(
        network,
        data,
        matched.names,
        tuple(names),
        tuple(map(group_of, names)) if group_of else (),
        torch.cat(labels),
        found if within else found.sigmoid(),
        AS_THEY_ARE if within else SIGMOID,
        matched.unmatched,
        source.grouping,
    )


def _outputs(output: Any) -> Float[Tensor, "image class"]:
    if (found := scores_in(output)) is None:
        raise ModelInputError("model", f"it gives a {type(output).__name__} without class scores (image, class)")
    return found if found.ndim == 2 else found[:, None]
