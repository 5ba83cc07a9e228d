from .files import open_files
from .images import UNLABELED, Batch, FileImages, ImageSource, MemoryImages, evenly_spaced
from .preprocessing import (
    CIFAR_MEAN,
    CIFAR_STD,
    Preprocessing,
    channel_statistics,
    default_preprocessing,
    shift_and_mirror,
)
from .request import data_root
from .sets import data_names, open_data
from .splits import hold_out
from .streaming import StreamedImages

__all__ = [
    "CIFAR_MEAN",
    "CIFAR_STD",
    "UNLABELED",
    "Batch",
    "FileImages",
    "ImageSource",
    "MemoryImages",
    "Preprocessing",
    "StreamedImages",
    "channel_statistics",
    "data_names",
    "data_root",
    "default_preprocessing",
    "evenly_spaced",
    "hold_out",
    "open_data",
    "open_files",
    "shift_and_mirror",
]
