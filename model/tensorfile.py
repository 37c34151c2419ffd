"""Writing safetensors files one tensor at a time, and reading them with faults that name the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unipic.model.checkpoint import CheckpointFault

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write(path: Path, tensors: Mapping[str, Tensor], *, done: Callable[[str, int], None] | None = None) -> int:
    """Write named float tensors in name order; holds one at a time. Returns the bytes of all tensors.

    `done` hears (name, bytes) after each. Raises CheckpointFault for a dtype that is not a float of 16 or 32 bits.
    """
    header, offset = {}, 0
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise CheckpointFault(f"{name} has dtype {tensor.dtype}, expected one of {', '.join(map(str, _NAMES))}")
        stop = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            flat = tensors[name].detach().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
            if done:
                done(name, flat.numel() * flat.element_size())
    return offset


def read(path: Path, *, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names, with `prefix` in front, and tensors of one file, one at a time.

    Raises CheckpointFault for a file that is missing or is not a valid safetensors file.
    """
    if not path.is_file():
        raise CheckpointFault(f"{path} is missing")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary, it has no iterator
                yield prefix + name, file.get_tensor(name)
    except SafetensorError as fault:
        raise CheckpointFault(f"{path} is not a valid safetensors file: {fault}") from fault
