"""What capturing costs in time and memory: `python -m benchmarks.capture_speed`.

Time: ResNet164, batch 32, CPU, evaluation, as a stream runs it (attention found once, with a watched pass of two
images) and with finding it before each pass; beside it the same pass without capture a second time, which shows how far
the machine itself drifts.
Memory: the peak of a process that writes a capture store of 1,000 or 10,000 images.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved
from dia_analysis import ImageList, capture, write_store
from dia_models import create_model
from dia_models.training.device import keep_freed_memory

MODELS = ("cifar_resnet164_dia_lstm", "cifar_resnet164_se")
SMALL = "cifar_resnet20_se"
COUNTS = (1_000, 10_000)


def time_ratios(rounds: int) -> None:
    """Print captured / not captured beside what is promised."""
    keep_freed_memory()
    torch.manual_seed(0)
    images = torch.randn(32, 3, 32, 32).to(memory_format=torch.channels_last)
    for name in MODELS:
        model = create_model(name).eval().to(memory_format=torch.channels_last)
        captured = create_model(name).eval().to(memory_format=torch.channels_last)
        captured.load_state_dict(model.state_dict())
        with torch.inference_mode(), capture(captured):
            functions: dict[str, Callable[[], object]] = {
                "off": partial(model, images),
                "stream": partial(captured, images),
                "pass": partial(attached, model, images),
                "off again": partial(model, images),
            }
            seconds = interleaved(functions, rounds)
        off = seconds["off"]
        print(f"{name}: {1000 * off:.1f} ms without capture, median of {rounds} rounds")
        print(f"  captured / not captured, as a stream runs {seconds['stream'] / off:.3f}  promised 1.03")
        print(f"  the same, attention found anew every time {seconds['pass'] / off:.3f}")
        print(f"  not captured / not captured, the drift    {seconds['off again'] / off:.3f}")


def attached(model: nn.Module, images: Tensor) -> None:
    """One forward pass with hooks attached before it and taken off after it."""
    with capture(model):
        model(images)


def write(count: int) -> None:
    """Write a store of random images, and print this process' peak memory in MiB."""
    model = create_model(SMALL)

    def batches(rows: list[int]) -> Iterable[tuple[Tensor, Sequence[int]]]:
        for start in range(0, len(rows), 100):
            yield torch.rand(100, 3, 16, 16), rows[start : start + 100]

    with tempfile.TemporaryDirectory() as folder:
        names = tuple(f"#{i}" for i in range(count))
        write_store(Path(folder) / "maps.zarr", model, batches, ImageList(names), batch=100)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory() -> None:
    """Print the peak memory of captures of few and many images, each in a process of its own."""
    peaks = {}
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.capture_speed", "--write", str(count)]
        peaks[count] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{SMALL}: a store of {count:,} images, peak {peaks[count]:.0f} MiB")
    few, many = COUNTS
    print(f"  peak of {many:,} / peak of {few:,} {peaks[many] / peaks[few]:.3f}")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.write)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    time_ratios(given.rounds)
    memory()


if __name__ == "__main__":
    main()
