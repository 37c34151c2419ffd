"""CPUs and GPUs of this machine, found without loading PyTorch or Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """`cpus`: cores this process may use; `gpus`: GPUs it may use."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        cores = f"{self.cpus} CPU core{'s' * (self.cpus != 1)}"
        return f"{cores}, {self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else f"{cores}, no GPU"


def this_machine(devices: Path = Path("/dev")) -> Machine:
    """`devices`: the folder of device files."""
    return Machine(len(os.sched_getaffinity(0)), _gpus(devices))


def _gpus(devices: Path) -> int:
    present = len(list(devices.glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    chosen = visible.split(",")
    usable = chosen[: chosen.index("-1")] if "-1" in chosen else chosen  # CUDA ignores what follows an invalid id
    return min(present, sum(bool(name.strip()) for name in usable))
