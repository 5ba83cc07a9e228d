from .files import open_files
from .image_source import ImageSource
from .images import UNLABELED, Batch, FileImages, MemoryImages, evenly_spaced
from .labels import Outputs
from .preprocessing import (
    CIFAR_MEAN,
    CIFAR_STD,
    Preprocessing,
    channel_statistics,
    default_preprocessing,
    shift_and_mirror,
)
from .python_images import PythonImages, as_pictures
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
    "Outputs",
    "Preprocessing",
    "PythonImages",
    "StreamedImages",
    "as_pictures",
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
