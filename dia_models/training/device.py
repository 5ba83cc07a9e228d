"""Which device to compute on, in which precision, on how many cores, and how freed memory is kept."""

import ctypes
import os
import sys

import torch

from dia_models.errors import ModelInputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA, else Apple's MPS, else CPU), `cpu`, `cuda`, `cuda:1`, `mps`. Raises ModelInputError for others."""
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available += ["mps"]
    if name == "auto":
        return torch.device(next((d for d in ("cuda", "mps") if d in available), "cpu"))
    if name not in available:
        raise ModelInputError("device", f"{name!r} is not available here; accepted: auto, {', '.join(available)}")
    return torch.device(name)


def process_device(name: str) -> torch.device:
    """The device of this process: of several that torchrun starts, each has a GPU of its own if there are any."""
    own = os.environ.get("LOCAL_RANK")
    device = choose_device(f"cuda:{own}" if own and name in ("auto", "cuda") and torch.cuda.is_available() else name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` means bfloat16 where the hardware computes in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def keep_freed_memory() -> bool:
    """Tell glibc not to give large blocks back to the system; True if it listens.

    Training on a CPU frees and takes the same large blocks at every step. Each page given back must be cleared by the
    kernel before it can be used again, a quarter of the time of a training step of a small network.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
