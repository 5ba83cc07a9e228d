"""A small data set in the layout of the chest X-rays, and networks for it."""

import numpy as np
import torch
from PIL import Image

from dia_models import CheckpointInfo, create_model, save_checkpoint
from dia_models.data import Preprocessing

CLASSES = ("NORMAL", "PNEUMONIA")


def chest_xray(root, train=12, test=8, size=20):
    """Folders of grey images: two a patient; patients 0 and 1 with pneumonia are in both parts."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        offset = {"train": 0, "test": 500}[part]
        for label in CLASSES:
            folder = root / "chest_xray" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(40, 120, (size, size), dtype=np.uint8)
                if label == "PNEUMONIA":
                    pixels[5:15, 3:9] += 100
                Image.fromarray(pixels).save(folder / _name(label, i, offset if label == "NORMAL" else 0, part))
    return root


def _name(label, i, offset, part):
    if label == "NORMAL":
        return f"IM-{offset + i // 2:04d}-{i:04d}.png"
    person = i // 2 if part == "train" or i < 4 else 500 + i // 2
    return f"person{person}_virus_{i}.png"


def network(path, model="cifar_resnet11", *, seed=0, data="chest-xray", validation=0.25, classes=CLASSES, size=16):
    """A checkpoint with random weights, as if it came from a run."""
    torch.manual_seed(seed)
    made = create_model(model, num_classes=len(classes), in_channels=1)
    info = CheckpointInfo(
        model=made.spec,
        data=data,
        classes=classes,
        preprocessing=Preprocessing(height=size, width=size, mean=(0.4,), std=(0.2,)),
        recipe={} if validation is None else {"name": "one_cycle", "validation": validation},
        seed=seed,
    )
    save_checkpoint(path, made.eval(), info)
    return path
