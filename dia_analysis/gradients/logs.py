"""Where numbers go while a network is trained: to a logger, a file or a function."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dia_analysis.errors import AnalysisInputError

Write = Callable[[Mapping[str, float], int], object]
ACCEPTED = (
    "TensorBoard's SummaryWriter, a logger of Lightning, a run of wandb, the path of a .csv file, or a function of "
    "(numbers, step)"
)


def write_to(log: Any) -> Write:
    """A function that takes named numbers and a step. Raises AnalysisInputError for what is nothing to write to."""
    if log is None:
        return lambda _, __: None
    if isinstance(log, str | Path):
        return _CsvFile(Path(log))
    if hasattr(log, "add_scalar"):
        return lambda numbers, step: [log.add_scalar(name, value, step) for name, value in numbers.items()]
    if hasattr(log, "log_metrics"):
        return lambda numbers, step: log.log_metrics(dict(numbers), step)
    if hasattr(log, "log"):  # wandb, whose own step is how often anything was logged
        return lambda numbers, step: log.log({"gradients/step": step, **numbers})
    if callable(log):
        return log  # type: ignore[no-any-return]
    raise AnalysisInputError("log", f"a {type(log).__name__} given; accepted: {ACCEPTED}")


class _CsvFile:
    """A row for each step; written at once, so that a training that is killed leaves its rows."""

    def __init__(self, path: Path):
        if path.suffix.lower() != ".csv":
            raise AnalysisInputError("log", f"{path} does not end in .csv; accepted: {ACCEPTED}")
        if path.exists():
            raise AnalysisInputError("log", f"{path} exists; name another file, or move it away")
        self.path = path

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, ["step", *numbers])
            if is_new:
                rows.writeheader()
            rows.writerow({"step": step, **numbers})
