"""Images: data sets by name, files, preprocessing and augmentation."""

from dia_models.data.images import UNLABELLED, Batch, FileImages, ImageSource, MemoryImages, evenly_spaced
from dia_models.data.preprocessing import CIFAR_MEAN, CIFAR_STD, Preprocessing, measured, shift_and_mirror, suited
from dia_models.data.sets import data_names, data_root, open_data

__all__ = [
    "CIFAR_MEAN",
    "CIFAR_STD",
    "UNLABELLED",
    "Batch",
    "FileImages",
    "ImageSource",
    "MemoryImages",
    "Preprocessing",
    "data_names",
    "data_root",
    "evenly_spaced",
    "measured",
    "open_data",
    "shift_and_mirror",
    "suited",
]
