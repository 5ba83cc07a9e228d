"""What the training loop costs beside the network: `python -m benchmarks.training_speed`.

One process trains a CIFAR ResNet29 on CIFAR-10 with ours, with the bare network on batches that lie in memory, and
with a loop as one writes it first: torchvision's transforms and a DataLoader. An epoch of each in turn, a few hundred
batches altogether; the ratios are of medians. Ours and the bare network compute in this process alone, so for those two
the processor's time counts and not what else the machine does; a DataLoader has processes of its own and is timed by
the clock on the wall.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dia_models import create_model
from dia_models.classification.training import ClassifierTraining
from dia_models.data import CIFAR_MEAN, CIFAR_STD, MemoryImages, default_preprocessing, evenly_spaced, open_data
from dia_models.training.batches import TrainingData
from dia_models.training.device import choose_precision, keep_freed_memory
from dia_models.training.optimizers import make_optimizer
from dia_models.training.recipe import Recipe, load_recipe
from dia_models.training.trainer import make_trainer

CPU = torch.device("cpu")


class Pictures(Dataset):
    """Images as torchvision's CIFAR10 gives them: one by one, through transforms."""

    def __init__(self, images: MemoryImages):
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR_MEAN, CIFAR_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images.pixels[index].numpy())
        return self.transform(picture), int(self.images.labels[index])


class Loop:
    """A network and how it is trained: in its memory format and precision, on the batches that `batches` gives."""

    def __init__(self, recipe: Recipe, memory: torch.memory_format, low: bool, batches: Callable[[], Iterator]):
        self.model = seeded().to(memory_format=memory)
        self.optimizer = make_optimizer(self.model, recipe)
        self.memory, self.low, self.batches = memory, low, batches

    def epoch(self) -> None:
        """Every batch: forward, backward, step."""
        self.model.train()
        for images, labels in self.batches():
            with torch.autocast("cpu", torch.bfloat16) if self.low else nullcontext():
                logits = self.model(images.to(memory_format=self.memory))
            loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


@dataclass
class Clock:
    """Seconds of epochs: on the wall, and of this process on the processor."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    started: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Begin an epoch."""
        self.started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End it."""
        self.wall.append(time.perf_counter() - self.started[0])
        self.processor.append(time.process_time() - self.started[1])


class InTurn(Callback):
    """Times each epoch of our loop, and after it one of each of the others."""

    def __init__(self, others: dict[str, Loop]):
        self.others = others
        self.clocks = {name: Clock() for name in ("ours", *others)}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.clocks["ours"].start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop it, and time the others."""
        self.clocks["ours"].stop()
        with torch.enable_grad():
            for name, loop in self.others.items():
                self.clocks[name].start()
                loop.epoch()
                self.clocks[name].stop()


def seeded() -> nn.Module:
    """A network of fixed weights."""
    torch.manual_seed(0)
    return create_model("cifar_resnet29", num_classes=10)


def some_images(count: int, data_dir: Path | None) -> MemoryImages:
    """CIFAR-10's training images at equal distances."""
    source = open_data("cifar10", "train", data_dir)
    indices = evenly_spaced(count, len(source))
    return (
        source.take(torch.tensor(indices)) if isinstance(source, MemoryImages) else source.take(indices).load(None, 3)
    )


def measure(images: MemoryImages, recipe: Recipe) -> dict[str, Clock]:
    """The seconds of an epoch of every loop."""
    preprocessing = default_preprocessing("cifar10", images.pixels)
    starts = range(0, len(images), recipe.batch_size)
    ready = [
        (preprocessing(images.pixels[i : i + recipe.batch_size]), images.labels[i : i + recipe.batch_size])
        for i in starts
    ]
    loader = DataLoader(Pictures(images), recipe.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    low = choose_precision(recipe.precision, CPU) == "bfloat16"
    others = {
        "bare network": Loop(recipe, torch.channels_last, low, lambda: iter(ready)),
        "DataLoader": Loop(recipe, torch.contiguous_format, False, lambda: iter(loader)),
        "DataLoader, our precision and format": Loop(recipe, torch.channels_last, low, lambda: iter(loader)),
    }
    in_turn = InTurn(others)
    training = ClassifierTraining(seeded().to(memory_format=torch.channels_last), recipe, preprocessing, len(images), 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(recipe, Path(folder), CPU, "bfloat16" if low else "float32", (in_turn,), validates=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.")  # of Lightning's own use of torch
            trainer.fit(training, datamodule=TrainingData(images, None, recipe, 0))
    return in_turn.clocks


def main() -> None:
    """Print the ratios beside what is promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10, help="in an epoch")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_freed_memory()
    batch = 64
    recipe = load_recipe("one_cycle", epochs=given.rounds + 1, batch_size=batch, validation=0.0)
    images = some_images(given.batches * batch, given.data_dir)
    clocks = measure(images, recipe)
    wall, processor = ({n: median(getattr(c, by)[1:]) for n, c in clocks.items()} for by in ("wall", "processor"))
    precision = choose_precision(recipe.precision, CPU)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {precision}; {given.rounds} epochs' medians")
    for name, value in wall.items():
        print(f"{name:<40} {len(images) / value:7.0f} images/s")
    print(f"our epoch / bare network                 {processor['ours'] / processor['bare network']:.3f}  promised 1.1")
    print(f"our speed / DataLoader                   {wall['DataLoader'] / wall['ours']:.2f}  promised 1.2")
    print(f"the same in our precision and format     {wall['DataLoader, our precision and format'] / wall['ours']:.2f}")


if __name__ == "__main__":
    main()
