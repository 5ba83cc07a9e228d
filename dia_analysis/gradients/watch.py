"""The gradients of a network while it is trained: in some of its passes, what comes back to its stages' outputs."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from math import nan

from torch import nn

from dia_analysis.gradients.change import decades
from dia_analysis.gradients.probes import Probes
from dia_analysis.gradients.results import PointGradients
from dia_analysis.gradients.trace import Call, StageOutput, find_stages, named_stages, tracing

Points = tuple[PointGradients, ...]
Report = Callable[[Points, int], object]
QUANTILES = {"median_abs": 0.5, "q05_abs": 0.05, "q95_abs": 0.95}


class Watch:
    """One network in training: its first pass is traced to find the stages, some of the later ones are measured.

    `begin` comes before a pass, `end` after it and before the backward pass, and what is measured is reported by the
    next `flush` after a gradient came back. Between `end` and `begin` nothing of it hangs on the modules.
    """

    def __init__(self, model: nn.Module, points: str | Iterable[str] | None, every: int, report: Report):
        self.model, self.points, self.every, self.report = model, points, every, report
        self.passes = 0
        self.stages: list[StageOutput] | None = None
        self.hooks = ExitStack()
        self.root: Call | None = None
        self.probes: Probes | None = None
        self.step = 0
        self.warned = False

    def begin(self, step: int | None = None, scale: float = 1.0) -> None:
        """Before a training pass: the first is traced, the second measured, and from then on every so many."""
        self.flush()
        number, self.passes = self.passes, self.passes + 1
        if self.stages is None:
            inside = [(name, module) for name, module in self.model.named_modules() if name]
            self.root = self.hooks.enter_context(tracing(inside, with_gradient=True))
        elif (number - 1) % self.every == 0:
            self.step = number if step is None else step
            keys = {stage.output.key for stage in self.stages}
            self.probes = Probes(keys, scale, sync_on_compute=False)
            self.hooks.enter_context(self.probes.attached(self.model))
            self.probes.start()

    def end(self) -> None:
        """After the pass, before its gradients are computed."""
        self.hooks.close()
        if self.probes is not None:
            self.probes.running = False
        if self.root is not None:
            root, self.root = self.root, None
            self.stages = find_stages(root) if self.points is None else named_stages(root, self.model, self.points)

    def drop(self) -> None:
        """After a pass that failed."""
        self.hooks.close()
        self.root = self.probes = None

    def flush(self) -> None:
        """Report what was measured, if its gradients have come back."""
        if self.probes is None or not self.probes.reached:
            return
        probes, self.probes = self.probes, None
        assert self.stages is not None
        silent = set(probes.silent)
        if silent and not self.warned:
            self.warned = True
            warnings.warn(f"no gradient came back to {sorted(silent)[0][0]}, so it is not logged", stacklevel=2)
        reached = [(n, stage.output.key) for n, stage in enumerate(self.stages, 1) if stage.output.key not in silent]
        self.report(tuple(probes.result(number, None, key) for number, key in reached), self.step)


def numbers_of(points: Points) -> dict[str, float]:
    """The statistics of the absolute gradient at each stage's output, by names such as `gradients/stage1/mean_abs`.

    `zeros` and `nonfinite` are shares of all values; `decades` is what the mean gains from the last stage back to the
    first. What is no number is NaN.
    """
    found: dict[str, float] = {}
    for point in points:
        values = point.magnitudes
        total = values.count + values.nonfinite
        named = {
            "mean_abs": values.mean,
            "std_abs": values.std,
            **{name: values.quantile(q) for name, q in QUANTILES.items()},
            "zeros": values.zeros / total,
            "nonfinite": values.nonfinite / total,
            "relative": point.relative,
        }
        for name, number in named.items():
            found[f"gradients/stage{point.stage}/{name}"] = nan if number is None else number
    if len(points) > 1:
        gained = decades(points[0].magnitudes.mean, points[-1].magnitudes.mean)
        found["gradients/decades"] = nan if gained is None else gained
    return found
