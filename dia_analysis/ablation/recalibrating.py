"""New statistics for batch norms when the maps before them are replaced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dia_analysis.ablation.conditions import Condition
from dia_analysis.ablation.donors import Donors
from dia_analysis.ablation.fitting import Average
from dia_analysis.ablation.images import LabelledBatches
from dia_analysis.ablation.running import ReplaceableMaps
from dia_analysis.errors import AnalysisInputError

Buffers = list[list[Tensor]]


class Recalibration:
    """Estimates the statistics of a network's batch norms over the fit images, as cumulative averages over batches."""

    def __init__(self, maps: ReplaceableMaps, fit: LabelledBatches):
        self.maps, self.fit = maps, fit
        self.norms = [
            module for module in maps.model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        if not self.norms:
            raise AnalysisInputError("recalibrate_bn", "the network has no batch norm with running statistics")

    def untouched(self) -> None:
        """Give the batch norms the statistics that the untouched network has over the fit images."""
        self._reset()
        with self._estimating():
            for batch in self.fit:
                self.maps.untouched(batch.images)

    def of(
        self, averages: Sequence[Average], conditions: Sequence[Condition], seed: int
    ) -> Callable[[int], AbstractContextManager[None]]:
        """For each way to replace maps its statistics; inside what is returned, the network has those of one."""
        before = self._buffers()
        self._reset()
        found = [self._buffers() for _ in conditions]
        donors = Donors(seed, 0)  # nothing is held: they come from the image's own batch
        for batch in self.fit:
            self._load(before)
            own = self.maps.untouched(batch.images)[1]
            drawn = donors.of(0, own)[0]
            for number, condition in enumerate(conditions):
                self._load(found[number])
                with self._estimating():
                    self.maps.replaced(batch.images, condition.new_maps(averages, own, drawn))
                found[number] = self._buffers()
        self._load(before)

        @contextmanager
        def with_statistics(number: int) -> Iterator[None]:
            self._load(found[number])
            yield
            self._load(before)

        return with_statistics

    @contextmanager
    def _estimating(self) -> Iterator[None]:
        momenta = [norm.momentum for norm in self.norms]
        try:
            for norm in self.norms:
                norm.momentum = None  # cumulative
                norm.train()
            yield
        finally:
            for norm, momentum in zip(self.norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()

    def _reset(self) -> None:
        for norm in self.norms:
            norm.reset_running_stats()

    def _buffers(self) -> Buffers:
        return [[buffer.clone() for buffer in norm.buffers()] for norm in self.norms]

    def _load(self, buffers: Buffers) -> None:
        for norm, kept in zip(self.norms, buffers, strict=True):
            for buffer, content in zip(norm.buffers(), kept, strict=True):
                buffer.copy_(content)
