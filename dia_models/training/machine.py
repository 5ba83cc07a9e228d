"""What a run was computed on: its numbers depend on it, and to other bits on another."""

import platform
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from dia_models.training.device import choose_precision
from dia_models.training.distributed import world_size
from dia_models.words import quantity

NOT_RECORDED = "not recorded"


class Machine(BaseModel):
    """The precision that a run computed in (never `auto`), and where.

    `processor` is the name of the GPU, or of the CPU where there is none; `threads` are those of each process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["float32", "bfloat16"]
    device: str = Field(max_length=100)
    processor: str = Field(max_length=1000)
    threads: int = Field(ge=1)
    processes: int = Field(ge=1)

    @classmethod
    def here(cls, precision: str, device: torch.device) -> "Machine":
        """This process's, for a recipe's `precision`."""
        return cls.model_validate(
            {
                "precision": choose_precision(precision, device),
                "device": device.type,
                "processor": processor(device),
                "threads": torch.get_num_threads(),
                "processes": world_size(),
            }
        )

    def __str__(self) -> str:
        threads = quantity(self.threads, "thread")
        each = "" if self.processes == 1 else f" in each of {self.processes} processes"
        return f"{self.precision} on {self.processor}, {threads}{each}"


def in_words(machine: Machine | None) -> str:
    """It, or that it was not recorded, as in the files of older versions."""
    return NOT_RECORDED if machine is None else str(machine)


def processor(device: torch.device) -> str:
    """The name of what computes: the GPU's or the CPU's, as far as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu(Path("/proc/cpuinfo")) or platform.processor() or platform.machine() or "unknown"


def _cpu(info: Path) -> str:
    """The first model name in the system's list of processors; empty where there is none."""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
