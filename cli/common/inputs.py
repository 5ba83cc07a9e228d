"""From a command's options to a network and the images it is to see."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cli.common.console import note, tracked
from cli.common.naming import read_named
from dia_analysis import Provenance
from dia_analysis.distributed import all_gather, share
from dia_models import Checkpoint, ModelInputError
from dia_models.checkpoints.untrained import UntrainedNetwork, has_statistics, untrained_network
from dia_models.data import Batch, FileImages, ImageSource, evenly_spaced, open_data
from dia_models.factory import require_classifier
from dia_models.training.allocator import keep_freed_memory
from dia_models.training.device import choose_device

STATISTICS_IMAGES = 1024

if TYPE_CHECKING:
    from dia_analysis import ImageList


@dataclass(frozen=True)
class Inputs:
    """A checkpoint's network on a device, and chosen images of a data set, prepared as the network expects them."""

    checkpoint: Checkpoint
    model: nn.Module
    device: torch.device
    data: str
    source: ImageSource
    chosen: list[int]
    batch_size: int
    seed: int

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images, batch by batch: (batch, channel, height, width), normalised, with a progress bar.

        Of several processes, each gets its share.
        """
        return (pixels for pixels, _ in self.labelled(label))

    def labelled(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the images' labels, which are numbers of the data's classes (-1: none)."""
        mine = share(self.chosen, self.batch_size)
        for batch in tracked(self._read(mine), -(-len(mine) // self.batch_size), label):
            yield self._prepare(batch), batch.labels

    def located(self, rows: list[int], label: str) -> Iterator[tuple[Tensor, list[int]]]:
        """The images at these positions among the chosen ones, batch by batch, with the positions of those read."""
        indices = [self.chosen[row] for row in rows]
        position = {self.source.name(index): row for index, row in zip(indices, rows, strict=True)}
        for batch in tracked(self._read(indices), -(-len(rows) // self.batch_size), label):
            yield self._prepare(batch), [position[name] for name in batch.names]

    def untrained(self) -> nn.Module:
        """The network before its training, batch-norm statistics as they were then."""
        return self.before_training().model

    def before_training(self) -> UntrainedNetwork:
        """The same, and where its weights come from."""
        found = untrained_network(self.checkpoint)
        found.model.to(self.device).to(memory_format=torch.channels_last)
        return found

    def reestimate(self, model: nn.Module) -> int:
        """Give a network's batch norms the statistics of up to 1,024 of the images; how many, 0 without batch norms."""
        if not has_statistics(model):
            return 0
        some = evenly_spaced(min(STATISTICS_IMAGES, len(self.chosen)), len(self.chosen))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # of dropout
            torch.optim.swa_utils.update_bn(self._prepared([self.chosen[i] for i in some]), model)
        model.eval()
        return len(some)

    def provenance(self) -> Provenance:
        """Where results from these inputs come from."""
        return Provenance(
            checkpoint=self.checkpoint.name,
            checkpoint_sha256=self.checkpoint.sha256,
            data=self.data,
            selection=f"{len(self.chosen)} of {len(self.source)} images at equal distances, in random order",
            seed=self.seed,
        )

    def _prepared(self, indices: list[int]) -> Iterator[Tensor]:
        return map(self._prepare, self._read(indices))

    def _prepare(self, batch: Batch) -> Tensor:
        return self.checkpoint.info.preprocessing(batch.pixels.to(self.device))

    def _read(self, indices: list[int]) -> Iterator[Batch]:
        info = self.checkpoint.info
        try:
            yield from self.source.batches(indices, self.batch_size, info.preprocessing.size, info.model.in_channels)
        except ModelInputError:
            if len(indices) == len(self.chosen) or not self._none_readable(indices):
                raise  # else the images of a share, none of which can be read, while others can

    def _none_readable(self, indices: list[int]) -> bool:
        unreadable = self.source.unreadable if isinstance(self.source, FileImages) else {}
        return all(self.source.name(index) in unreadable for index in indices)

    def image_list(self) -> "ImageList":
        """The chosen images' names and labels, and the names of the classes."""
        from dia_analysis import ImageList  # late: it loads Zarr

        labels = tuple(int(self.source.labels[index]) for index in self.chosen)
        return ImageList(tuple(self.names()), labels, self.source.classes)

    def names(self) -> list[str]:
        """The chosen images' names: paths below the data's folder, or `#number` for data without file names."""
        return [self.source.name(i) for i in self.chosen]

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        if not isinstance(self.source, FileImages):
            return
        unreadable = {
            name: reason for skipped in all_gather(self.source.unreadable) for name, reason in skipped.items()
        }
        if unreadable:
            note(f"warning: {len(unreadable)} of {len(self.chosen)} images cannot be read and were skipped:")
            for name, reason in sorted(unreadable.items()):
                note(f"  {name}: {reason}")


def open_inputs(
    ckpt: str | Checkpoint,
    data: str | None,
    images: int | None,
    *,
    data_dir: Path | None,
    download: bool = False,
    device: str,
    batch_size: int,
    workers: int,
    strict: bool,
    seed: int,
) -> Inputs:
    """Open a checkpoint and its images; `images` of them at equal distances, or 1,000 or all there are."""
    checkpoint = ckpt if isinstance(ckpt, Checkpoint) else read_named([ckpt])[0]
    require_classifier(checkpoint.info.model.name, "ckpt")
    data = data or checkpoint.info.data
    source = open_data(data, "any", data_dir, workers=workers, strict=strict, download=download)
    if images is not None and images > len(source):
        raise ModelInputError("images", f"{images} images asked for, {data} has {len(source)}; give at most that many")
    chosen = evenly_spaced(images or min(1000, len(source)), len(source))
    Random(seed).shuffle(chosen)  # so that the first few are of several classes
    return make_inputs(checkpoint, data, source, chosen, device=device, batch_size=batch_size, seed=seed)


def open_all(
    ckpts: Sequence[str],
    data: str | None,
    images: int | None,
    *,
    data_dir: Path | None,
    download: bool = False,
    device: str,
    batch_size: int,
    workers: int,
    strict: bool,
    seed: int,
) -> list[Inputs]:
    """Several checkpoints, under names that tell them apart, and the same images for all; as `open_inputs`."""
    checkpoints = read_named(ckpts)
    first = open_inputs(
        checkpoints[0],
        data,
        images,
        data_dir=data_dir,
        download=download,
        device=device,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        seed=seed,
    )
    for checkpoint in checkpoints:
        require_classifier(checkpoint.info.model.name, "ckpt")
    shared: Any = {"device": device, "batch_size": batch_size, "seed": seed}
    return [make_inputs(c, first.data, first.source, first.chosen, **shared) for c in checkpoints]


def make_inputs(
    checkpoint: Checkpoint,
    data: str,
    source: ImageSource,
    chosen: list[int],
    *,
    device: str,
    batch_size: int,
    seed: int,
) -> Inputs:
    """Build a checkpoint's network on a device, to see the chosen images of a source."""
    where = choose_device(_own_device(device))
    if where.type == "cpu":
        keep_freed_memory()
    model = checkpoint.build()
    model.to(where).to(memory_format=torch.channels_last)
    return Inputs(checkpoint, model, where, data, source, chosen, batch_size, seed)


def _own_device(device: str) -> str:
    """The device of this process: of several on one machine, each has a GPU of its own if there are any."""
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if own and device in ("auto", "cuda") and torch.cuda.is_available() else device
