"""The images that checkpoints were trained on, and those of them that the runs held out for validation."""

from collections.abc import Callable
from functools import lru_cache

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.classification.evaluation import validation_images
from dia_models.data import ImageSource, MemoryImages
from dia_models.data.chest_xray import in_both
from dia_models.errors import ModelInputError


class TrainingImages:
    """The training parts of data sets, opened by name, and decoded once for the checkpoints that share one."""

    def __init__(self, open_part: Callable[[str], ImageSource]):
        self._open = open_part
        self._decoded = lru_cache(maxsize=1)(self._decode)

    def of(self, checkpoint: Checkpoint) -> ImageSource | None:
        """The images that a checkpoint was trained on; None if they are not there."""
        try:
            train = self._open(checkpoint.info.data)
        except ModelInputError:
            return None
        return train if train.classes == checkpoint.info.classes else None

    def validation_images(self, checkpoint: Checkpoint) -> MemoryImages | None:
        """Those that its run held out for validation; None if there are none, or the images are not there."""
        info = checkpoint.info
        if self.of(checkpoint) is None:
            return None
        return validation_images(
            info, lambda: self._decoded(info.data, info.preprocessing.size, info.model.in_channels)
        )

    def _decode(self, data: str, size: tuple[int, int], channels: int) -> MemoryImages:
        train = self._open(data)
        return train if isinstance(train, MemoryImages) else train.load(size, channels)


def groups_in_both(some: ImageSource, train: ImageSource | None) -> frozenset[str] | None:
    """The groups (patients) that occur in both; None if that is not known."""
    if train is None or some.group_of is None:
        return None
    own, others = (map(part.name, range(len(part))) for part in (some, train))
    return in_both(own, others, some.group_of)
