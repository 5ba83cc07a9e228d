"""Batches of scenes, read on threads while the network is busy with those before."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dia_models.data.detection.scenes import Objects, Pixels, Scenes
from dia_models.training.distributed import rank, world_size

THREADS = 4
AHEAD = 2  # batches that are read before they are asked for
SMALL = (3, 64, 64)

Target = dict[str, Tensor]
SceneBatch = tuple[list[Pixels], list[Target], float]
"""Images, what is in them, and which part of the batch of all processes they are."""


@dataclass(frozen=True)
class SceneBatches:
    """Batches of scenes to train on, in a new order and, if `mirror`, half of them mirrored, both fixed by `seed`.

    Images are put together as they come, not by their shape. Of several processes, each reads its share of every batch;
    one that has nothing, or nothing that can be read, is given a black image that counts for nothing.
    """

    scenes: Scenes
    batch_size: int
    seed: int
    mirror: bool

    def __len__(self) -> int:
        """Batches: the last one may be smaller."""
        return -(-len(self.scenes) // self.batch_size)

    def __iter__(self) -> Iterator[SceneBatch]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(self.scenes), generator=generator).tolist()
        turned = (torch.rand(len(self.scenes), generator=generator) < 0.5).tolist()
        whole = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        mine = [batch[rank() :: world_size()] for batch in whole]
        for batch, read in zip(whole, read_ahead(self.scenes, mine), strict=True):
            shown = [_scene(pixels, self.scenes.objects[i], self.mirror and turned[i]) for i, pixels in read]
            yield _collate(shown, len(batch))


def read_ahead(scenes: Scenes, batches: Sequence[list[int]]) -> Iterator[list[tuple[int, Pixels]]]:
    """For each batch of indices, those whose images can be read, with the images."""
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[tuple[list[int], list[Future[Pixels | None]]]] = deque()
    try:
        for indices in batches:
            waiting.append((indices, [pool.submit(scenes.read, index) for index in indices]))
            if len(waiting) > AHEAD:
                yield _read(*waiting.popleft())
        while waiting:
            yield _read(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _read(indices: list[int], futures: list[Future[Pixels | None]]) -> list[tuple[int, Pixels]]:
    images = [(index, future.result()) for index, future in zip(indices, futures, strict=True)]
    return [(index, pixels) for index, pixels in images if pixels is not None]


def _scene(pixels: Pixels, objects: Objects, turned: bool) -> tuple[Pixels, Target]:
    if turned:
        pixels, objects = pixels.flip(2), objects.mirror(pixels.shape[2])
    return pixels, {"boxes": objects.boxes.float(), "labels": objects.labels}


def _collate(shown: Sequence[tuple[Pixels, Target]], whole: int) -> SceneBatch:
    if not shown:
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return [torch.zeros(SMALL, dtype=torch.uint8)], [nothing], 0.0
    return [pixels for pixels, _ in shown], [target for _, target in shown], len(shown) / whole
