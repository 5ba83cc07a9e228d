"""What does attention cost? Parameters, FLOPs, and time beside the backbone without it (section VI-B1 of the paper)."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.cost.flops import flop_count, operations_text
from dia_analysis.cost.timing import interleaved_seconds
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.modes import observing
from dia_analysis.probes.points import Inputs, attention_of
from dia_analysis.results.base import Concise, Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LEAST_ROUNDS = 6  # below, even from the least to the greatest is no 95 % interval of the median
MISSED = 0.05


@dataclass(frozen=True)
class Subject:
    """A network, its input (batch, channel, height, width), and the name of the network that it is compared with.

    `baseline` is usually the same backbone without attention; None if there is none.
    """

    model: nn.Module
    images: Tensor
    baseline: str | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, repr=False)
class NetworkCost(Concise):
    """One network. Parameters are counted once however often they are used; `flops` are of one image.

    `attention_parameters` is the difference to the baseline, or, without one, `attention_module_parameters`: those that
    `count_attention_parameters` counts. They differ where a backbone changes for the sake of attention, and where the
    backbone itself is a transformer. `uncounted` and `unseen` are what the FLOPs may lack (`FlopCount`).
    A network that is its own baseline has a ratio of 1.
    `seconds` holds one forward pass of the batch in each round, `ratios` the same divided by the baseline's pass in
    that round (empty without a baseline), `latency_ratio` their median and `interval` its 95 % interval.
    """

    name: str
    baseline: str | None
    parameters: int
    attention_parameters: int
    attention_module_parameters: int
    flops: int
    seconds: Float[np.ndarray, "round"]
    ratios: Float[np.ndarray, "ratio"]
    latency_ratio: float | None
    interval: tuple[float, float] | None
    input_shape: tuple[int, ...]
    provenance: Provenance
    uncounted: Mapping[str, int] = field(default_factory=dict)
    unseen: int = 0

    @property
    def latency_ms(self) -> float:
        """The median milliseconds of a forward pass of the batch."""
        return float(np.median(self.seconds)) * 1000

    def lacking(self) -> list[str]:
        """What the count of FLOPs may lack, a sentence for each reason."""
        lines = []
        if self.uncounted:
            lines.append(
                f"The FLOPs of {self.name} lack operations that have no formula: {operations_text(self.uncounted)}."
            )
        if self.unseen:
            lines.append(
                f"{self.unseen:,} of the parameters of {self.name} were used by no operation that torch can see: they "
                "are idle in evaluation mode, or the FLOPs of their layers are missing."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """One of the `models` of the JSON document dia.cost/1."""
        batch, *_, height, width = self.input_shape
        return {
            "name": self.name,
            "baseline": self.baseline,
            "parameters": self.parameters,
            "attention_parameters": self.attention_parameters,
            "attention_module_parameters": self.attention_module_parameters,
            "flops": self.flops,
            "flops_uncounted": dict(self.uncounted),
            "parameters_unseen": self.unseen,
            "latency_ms": self.latency_ms,
            "latency_ratio": self.latency_ratio,
            "latency_ratio_interval": None if self.interval is None else list(self.interval),
            "batch_size": batch,
            "image_size": [height, width],
            "seconds": self.seconds.tolist(),
            "provenance": self.provenance.to_dict(),
        }


@dataclass(frozen=True, repr=False)
class CostResult(Result):
    """What networks cost, measured in turn on one device. `threads` are those that a CPU computes with."""

    file = "cost"
    networks: tuple[NetworkCost, ...]
    device: str
    threads: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.cost/1."""
        return {
            "schema": "dia.cost/1",
            "device": self.device,
            "threads": self.threads,
            "rounds": len(self.networks[0].seconds),
            "seed": self.seed,
            "flops_count": "per image; a multiply-add is 2; convolutions and products of matrices and vectors only",
            "models": [network.to_dict() for network in self.networks],
        }

    def summary(self) -> str:
        """A table of the networks."""
        heads = ("network", "parameters", "attention", "MFLOPs", "ms/batch", "ratio", "95 % interval", "to")
        table = text_table([heads, *map(_row, self.networks)], left=[0, -1])
        sizes = sorted({network.input_shape for network in self.networks})
        inputs = ", ".join(f"{quantity(size[0], 'image')} of {size[-2]}x{size[-1]}" for size in sizes)
        threads = quantity(self.threads, "thread")
        return "\n".join(
            [
                table,
                "",
                f"A batch is {inputs}; median of {len(self.networks[0].seconds)} rounds on {self.device}, "
                f"{threads}. FLOPs are of one image, a multiply-add counted as 2.",
                *(line for network in self.networks for line in network.lacking()),
            ]
        )

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The latency ratios; without a baseline there is none."""
        return [self._draw] if any(network.latency_ratio is not None for network in self.networks) else []

    def _draw(self, ax: "Axes") -> None:
        compared = [network for network in self.networks if network.latency_ratio is not None]
        for position, network in enumerate(compared):
            assert network.latency_ratio is not None
            assert network.interval is not None
            ax.plot(network.interval, [position, position], "-", color="C0")
            ax.plot([network.latency_ratio], [position], "o", color="C0")
        ax.axvline(1.0, color="0.6", lw=0.8)
        ax.set(yticks=range(len(compared)), yticklabels=[network.name for network in compared])
        ax.set_xlabel("Time of a forward pass, relative to the backbone (95 % interval)")
        ax.invert_yaxis()

    def datasets(self) -> dict[str, xr.Dataset]:
        """The seconds of every pass, by network and round."""
        arrays = xr.Dataset(
            {"seconds": (("network", "round"), np.stack([network.seconds for network in self.networks]))},
            coords={"network": [network.name for network in self.networks]},
            attrs={"device": self.device, "threads": self.threads},
        )
        return {"seconds": arrays}

    def to_xarray(self) -> xr.Dataset:
        """The same."""
        return self.datasets()["seconds"]

    def to_dataframe(self) -> "pd.DataFrame":
        """The seconds by network and round."""
        return long_form([({}, self.to_xarray())], "seconds")

    def about(self) -> dict[str, Any]:
        """Where each network comes from."""
        return {"networks": [network.provenance.to_dict() for network in self.networks]}


def measure_cost(subjects: Mapping[str, Subject], *, rounds: int = 20, seed: int = 0) -> CostResult:
    """Count and time networks in evaluation mode, all in turn in every round.

    Args:
        subjects: By name, each network with its input and the name of its baseline; they are left as they were.
        rounds: How often each is timed, 6 or more.
        seed: For networks that draw random numbers.

    Returns:
        Parameters, FLOPs of an image, seconds of each pass, and the median ratio to the baseline's time with its 95 %
        interval (`median_interval`).

    Raises:
        AnalysisInputError: For a baseline that is not among the networks, and for too few rounds.
    """
    if rounds < LEAST_ROUNDS:
        raise AnalysisInputError("rounds", f"{rounds} given; a 95 % interval takes {LEAST_ROUNDS} or more")
    if not subjects:
        raise AnalysisInputError("model", "there is no network to measure")
    for name, subject in subjects.items():
        if subject.baseline is not None and subject.baseline not in subjects:
            raise AnalysisInputError(
                "model", f"{name} is compared with {subject.baseline}, which is not among {', '.join(subjects)}"
            )
    seconds = _timed(subjects, rounds, seed)
    networks = tuple(_network(name, subjects, seconds, seed) for name in subjects)
    device = next(iter(subjects.values())).images.device
    return CostResult(networks, str(device), torch.get_num_threads(), seed)


def count_parameters(model: nn.Module) -> int:
    """How many parameters a network has; one that several modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_attention_parameters(model: nn.Module, inputs: Inputs | None = None) -> int:
    """How many parameters make a network's attention maps, as a pass shows; 0 without attention.

    Of gates, those between the features and the gate; of self-attention, the projections of queries, keys, values and
    output, but not the norm before it nor the layers after it. In a network that has both, those of the gates.

    Args:
        model: Any network.
        inputs: As for `find_points`.

    Raises:
        AnalysisInputError: If the network cannot be run on the inputs.
    """
    points = [point for point in attention_of(model, inputs) if point.usable]
    gates = [point for point in points if point.kind != "self-attention"]
    names = frozenset[str]().union(*(point.weights for point in gates or points))
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)


def median_interval(values: Float[np.ndarray, "value"]) -> tuple[float, float]:
    """The 95 % interval of the median of six or more independent values, whatever their distribution.

    From the k-th least to the k-th greatest value, with the largest k for which that misses the median in at most 5 %
    of samples: the number of values below it is binomial with probability 1/2.
    """
    n, ordered = len(values), np.sort(values)
    misses = 2 * np.cumsum([comb(n, below) for below in range(n // 2)]) / 2**n
    k = int((misses <= MISSED).sum())
    return float(ordered[k - 1]), float(ordered[-k])


def _timed(subjects: Mapping[str, Subject], rounds: int, seed: int) -> dict[str, Float[np.ndarray, "round"]]:
    functions: dict[str, Callable[[], object]] = {n: partial(s.model, s.images) for n, s in subjects.items()}
    device = next(iter(subjects.values())).images.device
    with ExitStack() as modes:
        for subject in subjects.values():
            modes.enter_context(observing(subject.model, seed))
        modes.enter_context(torch.inference_mode())
        seconds = interleaved_seconds(functions, rounds, device=device)
    return {name: np.array(values) for name, values in seconds.items()}


def _network(
    name: str, subjects: Mapping[str, Subject], seconds: Mapping[str, Float[np.ndarray, "round"]], seed: int
) -> NetworkCost:
    subject = subjects[name]
    parameters, in_modules = count_parameters(subject.model), count_attention_parameters(subject.model, subject.images)
    ratios, added = np.empty(0), in_modules
    if subject.baseline is not None:
        ratios = seconds[name] / seconds[subject.baseline]
        added = parameters - count_parameters(subjects[subject.baseline].model)
    counted = flop_count(subject.model, subject.images, seed=seed)
    return NetworkCost(
        name=name,
        baseline=subject.baseline,
        parameters=parameters,
        attention_parameters=added,
        attention_module_parameters=in_modules,
        flops=counted.flops,
        seconds=seconds[name],
        ratios=ratios,
        latency_ratio=float(np.median(ratios)) if len(ratios) else None,
        interval=median_interval(ratios) if len(ratios) else None,
        input_shape=tuple(subject.images.shape),
        provenance=subject.provenance or Provenance(seed=seed),
        uncounted=counted.uncounted,
        unseen=counted.unseen,
    )


def _row(network: NetworkCost) -> tuple[str, ...]:
    compared = ("-", "-", "-")
    if network.latency_ratio is not None and network.interval is not None:
        low, high = network.interval
        compared = (f"{network.latency_ratio:.3f}", f"{low:.3f} to {high:.3f}", str(network.baseline))
    return (
        network.name,
        f"{network.parameters:,}",
        f"{network.attention_parameters:,}",
        f"{network.flops / 1e6:,.1f}",
        f"{network.latency_ms:.1f}",
        *compared,
    )
