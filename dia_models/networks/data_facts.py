"""What a network may assume of the images that it will see."""

from dataclasses import dataclass, replace

from dia_models.data import MemoryImages, Preprocessing, PythonImages, default_preprocessing
from dia_models.data.selection import Selection
from dia_models.networks.libraries import OwnSource
from dia_models.networks.request import Request, Source


@dataclass(frozen=True)
class DataFacts:
    """What is known of the images that a network will see: their size, mean and std, and their classes."""

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()

    def suit(self, source: Source, request: Request) -> Request:
        """The request for a network with random weights: as many outputs as classes, one of ours with the channels."""
        if self.classes and request.num_classes is None and "num_classes" not in request.options:
            request = replace(request, num_classes=len(self.classes)) if source.takes_classes() else request
        if self.preprocessing is not None and request.channels is None and isinstance(source, OwnSource):
            request = replace(request, channels=len(self.preprocessing.mean))
        return request


def data_facts(images: Selection, size: tuple[int, int] | None = None, *, read: bool = False) -> DataFacts:
    """The facts of some images; those in files are read to know, at a size (height, width), only if `read`."""
    source, shown = images.source, None
    if isinstance(source, MemoryImages):
        shown = default_preprocessing(images.data, source.pixels[images.chosen])
    elif isinstance(source, PythonImages):
        shown = source.preprocessing()
    elif read:
        shown = default_preprocessing(images.data, source.take(images.chosen).load(size, 3).pixels)
    return DataFacts(shown, source.classes)
