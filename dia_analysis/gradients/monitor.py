"""Gradients at the stages' outputs during a training of one's own: a Lightning callback, or a context."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.gradients.logs import write_to
from dia_analysis.gradients.watch import Points, Watch, numbers_of

EVERY = 50


class GradientMonitor(Callback):
    """Logs the absolute gradient at each stage's output, as `measure_gradients` has it, while a network is trained.

    As a callback of Lightning's Trainer it writes to the trainer's loggers; in any other loop, `with
    monitor.watch(model):`. The first training pass shows where the stages are; the second and then every `every`th is
    measured. Training goes on as without it, to the bit; the gradient is of the loss as it is trained on, which is
    mostly a mean over the batch. Of several processes each measures its own batches.

    Args:
        every: How many training passes there are from one that is measured to the next.
        points: Shell patterns of modules that count as stages; by default stages are found (`find_stages`).
        log: TensorBoard's SummaryWriter, a logger of Lightning, a run of wandb, the path of a .csv file that does not
            exist, or a function of (numbers, step). By default the trainer's loggers, and without these nothing.

    Attributes:
        latest: The stages as they were measured last, with all that `PointGradients` holds; empty before.

    Raises:
        AnalysisInputError: For what cannot be written to; and from the first pass, if no stage is found.
    """

    def __init__(self, every: int = EVERY, *, points: str | Iterable[str] | None = None, log: Any = None):
        if every < 1:
            raise AnalysisInputError("every", f"{every} given; accepted: a number from 1")
        self.every, self.points = every, points
        self.write = write_to(log)
        self._to_trainers_loggers = log is None
        self.latest: Points = ()
        self._watch: Watch | None = None

    @contextmanager
    def watch(self, model: nn.Module, scaler: torch.amp.GradScaler | None = None) -> Iterator[None]:
        """Inside, training passes of the network are counted: those in training mode and with gradients.

        Args:
            model: The network as it is called in training; a compiled one runs uncompiled where it is measured.
            scaler: What the loss is scaled with, whose scale the gradients are then divided by.
        """
        watch = Watch(getattr(model, "_orig_mod", model), self.points, self.every, self._report)

        def begin(*_: Any) -> None:
            if model.training and torch.is_grad_enabled():
                watch.begin(scale=1.0 if scaler is None else scaler.get_scale())

        def end(_: nn.Module, __: Any, output: Any) -> None:
            watch.drop() if output is None else watch.end()  # it is None if the pass failed

        before = model.register_forward_pre_hook(begin)
        after = model.register_forward_hook(end, always_call=True)
        try:
            yield
            watch.flush()
        finally:
            before.remove()
            after.remove()
            watch.drop()

    def _report(self, points: Points, step: int) -> None:
        self.latest = points
        self.write(numbers_of(points), step)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start with the trainer's loggers."""
        if self._to_trainers_loggers:
            writers = [write_to(logger) for logger in trainer.loggers]
            self.write = lambda numbers, step: [write(numbers, step) for write in writers]
        self._watch = Watch(getattr(pl_module, "_orig_mod", pl_module), self.points, self.every, self._report)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Before a step."""
        assert self._watch is not None
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._watch.begin(trainer.global_step, 1.0 if scaler is None else scaler.get_scale())

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Between the two halves of a step."""
        assert self._watch is not None
        self._watch.end()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After a step."""
        assert self._watch is not None
        self._watch.end()
        self._watch.flush()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """After the last step."""
        self._stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """After a step that failed."""
        self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.drop()
            self._watch = None
