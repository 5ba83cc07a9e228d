"""Images: data sets by name, files, preprocessing and augmentation."""

from dia_models.data.files import open_files
from dia_models.data.images import UNLABELLED, Batch, FileImages, ImageSource, MemoryImages, evenly_spaced
from dia_models.data.preprocessing import CIFAR_MEAN, CIFAR_STD, Preprocessing, measured, shift_and_mirror, suited
from dia_models.data.request import data_root
from dia_models.data.sets import data_names, open_data
from dia_models.data.splits import hold_out
from dia_models.data.streaming import StreamedImages

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
