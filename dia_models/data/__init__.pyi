from .files import open_files
from .images import UNLABELLED, Batch, FileImages, ImageSource, MemoryImages, evenly_spaced
from .preprocessing import CIFAR_MEAN, CIFAR_STD, Preprocessing, measured, shift_and_mirror, suited
from .request import data_root
from .sets import data_names, open_data
from .splits import hold_out
from .streaming import StreamedImages

__all__ = [
    "CIFAR_MEAN",
    "CIFAR_STD",
    "UNLABELLED",
    "Batch",
    "FileImages",
    "ImageSource",
    "MemoryImages",
    "Preprocessing",
    "StreamedImages",
    "data_names",
    "data_root",
    "evenly_spaced",
    "hold_out",
    "measured",
    "open_data",
    "open_files",
    "shift_and_mirror",
    "suited",
]
