"""Steps that are captured once and replayed: as CUDA graphs on a card, called again elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unipic.model.head_sampler import HeadSampler

_WARM_UPS = 3
_BUCKET_MULTIPLE = 8
MAX_BUCKETS = 8

Step = Callable[[], None]


def captured(step: Step, device: torch.device, *, pool: object | None = None) -> Step:
    """What repeats `step`, which reads and writes tensors that stay where they are, and nothing on the host.

    Graphs of one `pool` share memory, and so must not run at once.
    """
    if device.type != "cuda":
        return step
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UPS):  # libraries choose kernels and allocate workspaces in their first calls
            step()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool):  # type: ignore[arg-type]
            step()
    except RuntimeError as fault:
        logging.getLogger(__name__).warning("CUDA graph capture failed, kernels are launched one by one: %s", fault)
        return step
    return graph.replay


def buckets(counts: Sequence[int], *, at_most: int = MAX_BUCKETS) -> tuple[int, ...]:
    """At most so many sizes, ascending, that each of `counts` fits into, with the least padding in all."""
    sizes = sorted({-(-count // _BUCKET_MULTIPLE) * _BUCKET_MULTIPLE for count in counts})

    def padding(below: int, size: int) -> int:
        return sum(size - count for count in counts if below < count <= size)

    # By the largest size: the least padding of all counts up to it, and the buckets that give it.
    best: dict[int, tuple[int, tuple[int, ...]]] = {size: (padding(0, size), (size,)) for size in sizes}
    for _ in range(at_most - 1):
        split = {
            size: [(best[low][0] + padding(low, size), (*best[low][1], size)) for low in sizes if low < size]
            for size in sizes
        }
        best.update({size: min([best[size], *split[size]]) for size in sizes})
    return best[sizes[-1]][1]


class HeadReplays:
    """The captured sampler steps of one model: one for each bucket, kept as long as batches are alike."""

    def __init__(self) -> None:
        self._alike: tuple[object, ...] | None = None
        self._steps: dict[int, HeadStep] = {}
        self._sizes: tuple[int, ...] = ()
        self._pool: object | None = None

    def prepare(self, sampler: HeadSampler, *, sizes: Sequence[int], steps: int, guided: bool) -> None:
        """Be ready for these numbers of tokens, and for samplers of up to `steps` steps."""
        device = sampler.table.device
        alike = (id(sampler.head), tuple(sizes), steps, guided, device)
        if alike == self._alike:
            return
        self._alike, self._sizes = alike, tuple(sorted(sizes))
        self._steps.clear()
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        for size in reversed(self._sizes):  # the largest first: the smaller ones fit into its memory
            self._steps[size] = HeadStep(sampler, size, steps=steps, guided=guided, pool=self._pool)

    def sample(self, sampler: HeadSampler, z: Tensor, noise: Tensor, *, guidance: float) -> Tensor:
        """As `HeadSampler.sample`, padded to a bucket's size; what is padded is cut off again."""
        size = next(size for size in self._sizes if size >= noise.shape[1])
        return self._steps[size].sample(sampler, z, noise, guidance=guidance)


class HeadStep:
    """One sampler step and the tensors that it reads and writes, for up to `size` tokens: the same at every call."""

    def __init__(self, sampler: HeadSampler, size: int, *, steps: int, guided: bool, pool: object | None) -> None:
        head, table = sampler.head, sampler.table
        device, dtype, width = table.device, sampler.times.dtype, sampler.times.shape[1]
        self._sampler, self._halves = sampler, 2 if guided else 1
        self._x = torch.zeros(size, head.channels, device=device)
        self._condition = torch.zeros(self._halves, size, width, dtype=dtype, device=device)
        self._noise = torch.zeros(steps, size, head.channels, device=device)
        self._times = torch.zeros(steps, width, dtype=dtype, device=device)
        self._table = torch.zeros(steps, table.shape[1], device=device)
        self._guidance = torch.zeros((), device=device)
        # The call to do, and the one after it, which has the noise to add; the last call adds none, its scale is zero.
        self._call = torch.tensor([0, 1], device=device)
        self._limit = steps - 1
        self._replay = captured(self.run, device, pool=pool)

    def run(self) -> None:
        """What is captured: every scalar comes from a table on the device."""
        call, following = self._call.clamp(max=self._limit).split(1)
        time = self._times.index_select(0, call)
        row = self._table.index_select(0, call)[0].unbind(0)
        noise = self._noise.index_select(0, following)[0]
        condition = self._condition.flatten(0, 1)
        self._x.copy_(self._sampler.step(self._x, condition, time, row, noise, self._guidance))
        self._call += 1

    def sample(self, sampler: HeadSampler, z: Tensor, noise: Tensor, *, guidance: float) -> Tensor:
        """As `HeadSampler.sample`, for a sampler of at most as many steps."""
        tokens, steps = noise.shape[1], sampler.steps
        self._condition[:, :tokens] = sampler.head.cond_embed(z).unflatten(0, (self._halves, tokens))
        self._noise[:steps, :tokens] = noise
        self._times[:steps] = sampler.times
        self._table[:steps] = sampler.table
        self._guidance.fill_(guidance)
        self._x[:tokens] = noise[0]
        self._call[0] = 0
        self._call[1] = 1
        for _ in range(steps):
            self._replay()
        return self._x[:tokens].clone()
