"""Counts what a device would do: kernels, arithmetic, memory traffic and the largest tensor, part by part.

Runs on tensors without data, so that no device and no memory is needed. What one kernel does on a card, and several
steps without one, is counted as that kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.flop_counter import flop_registry

from unipic.model.cards import Card

_REST = "rest"
# Allocate or rename, and start no kernel.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "resize_"}
# Read as much of their source as they write.
_PICKING = {"gather", "index", "index_select", "embedding", "take_along_dim"}
_VARLEN = "torch_attn::_varlen_attn"


class HostSync(RuntimeError):
    """The host waited for a number that only the device knows."""


@dataclass
class Work:
    """`moved_bytes`: read and written; `largest`: shape of the largest tensor that a kernel wrote."""

    launches: float = 0
    flops: float = 0
    moved_bytes: float = 0
    busy_s: float = 0
    largest_bytes: int = 0
    largest: tuple[int, ...] = ()

    def add(self, other: Work, times: float = 1) -> None:
        self.launches += other.launches * times
        self.flops += other.flops * times
        self.moved_bytes += other.moved_bytes * times
        self.busy_s += other.busy_s * times
        if other.largest_bytes > self.largest_bytes:
            self.largest_bytes, self.largest = other.largest_bytes, other.largest


@dataclass
class Counter:
    """What was counted, by part; `shapes`: distinct shapes of the first tensor each part was called with."""

    card: Card
    parts: dict[str, Work] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _open: list[str] = field(default_factory=lambda: [_REST])

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside is counted under `name`, unless inside a part within it."""
        self.calls[name] = self.calls.get(name, 0) + 1
        self._open.append(name)
        try:
            yield
        finally:
            self._open.pop()

    def kernel(self, reads: list[Tensor], writes: list[Tensor], *, flops: float = 0, launches: int = 1) -> None:
        moved = float(sum(map(_stored_bytes, [*reads, *writes])))
        largest = max(writes, key=_stored_bytes, default=None)
        work = Work(launches, flops, moved, self.card.busy_s(flops, moved))
        if largest is not None:
            work.largest_bytes, work.largest = _stored_bytes(largest), tuple(largest.shape)
        self.parts.setdefault(self._open[-1], Work()).add(work)


@contextmanager
def counting(card: Card) -> Iterator[Counter]:
    """Counts every operation on a tensor until it is closed."""
    counter = Counter(card)
    with _Dispatched(counter), _Fused(counter):
        yield counter


class _Dispatched(TorchDispatchMode):
    """Every primitive operation: one kernel, unless it only renames."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter
        self._known: dict[Any, tuple[Any, Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            raise HostSync("a number was read back from the device")
        if name not in _FREE and _is_made_of_others(func.name()):
            with self:  # inference mode hands over what is made of other operations whole
                return func.decompose(*args, **(kwargs or {}))
        out = self._shaped(func, args, kwargs or {})
        if name in _FREE or _only_renames(func):
            return out
        reads = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        writes = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if all(tensor.device.type == "cpu" for tensor in [*reads, *writes]):
            return out
        if func.name() == _VARLEN:
            # Flash attention, and the zeroed random state that it returns.
            self._counter.kernel(reads[:3], writes[:1], flops=_varlen_flops(*args), launches=2)
            return out
        if name in _PICKING:
            reads = [*reads[1:], writes[0]]
        formula = flop_registry.get(func.overloadpacket)
        flops = formula(*args, **(kwargs or {}), out_val=out) if formula is not None else 0
        self._counter.kernel(reads, writes, flops=flops)
        return out

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What `func` returns; its shape is worked out once for inputs of the same shapes, for that takes longest."""
        leaves, tree = tree_flatten((args, kwargs))
        if func._schema.is_mutable or _only_renames(func) or not _on_meta(leaves):
            return func(*args, **kwargs)
        key = (func, tree, tuple(map(_outline, leaves)))
        if key not in self._known:
            out = func(*args, **kwargs)
            if not isinstance(out, Tensor):
                return out
            self._known[key] = out.shape, out.stride(), out.dtype
        shape, stride, dtype = self._known[key]
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


class _Fused(TorchFunctionMode):
    """Functions that are one kernel on a card and would be taken apart on tensors without data."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        one_kernel = _FUSED.get(func)
        if one_kernel is None or args[0].device.type == "cpu":
            return func(*args, **kwargs)
        return one_kernel(self._counter, *args, **kwargs)


def _attention(
    counter: Counter, q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *, is_causal: bool = False, **_: Any
) -> Tensor:
    queries, keys = q.shape[-2], k.shape[-2]
    causal = is_causal or isinstance(attn_mask, CausalBias)
    pairs = _causal_pairs(queries, keys) if causal else queries * keys
    out = torch.empty_like(q)
    masks = [attn_mask] if isinstance(attn_mask, Tensor) and not causal else []
    counter.kernel([q, k, v, *masks], [out], flops=4 * prod(q.shape[:-2]) * pairs * q.shape[-1])
    return out


def _rms_norm(counter: Counter, x: Tensor, *_: Any, **__: Any) -> Tensor:
    out = torch.empty_like(x)
    counter.kernel([x], [out])
    return out


_FUSED: dict[Any, Callable[..., Tensor]] = {F.scaled_dot_product_attention: _attention, F.rms_norm: _rms_norm}


def _varlen_flops(q: Tensor, _k: Any, _v: Any, starts: Tensor, _starts: Any, max_q: int, max_k: int, *_: Any) -> int:
    """Of causal attention in which every sequence is as long as the longest."""
    return 4 * (starts.shape[0] - 1) * _causal_pairs(max_q, max_k) * q.shape[1] * q.shape[2]


def _causal_pairs(queries: int, keys: int) -> int:
    """Query and key pairs where the last query reads every key, and each earlier one a key less."""
    return queries * keys - queries * (queries - 1) // 2


@cache
def _is_made_of_others(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


@cache
def _only_renames(func: Any) -> bool:
    returns = [one.alias_info for one in func._schema.returns]
    return bool(returns) and all(alias is not None and not alias.is_write for alias in returns)


def _on_meta(leaves: list[Any]) -> bool:
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return bool(tensors) and all(tensor.device.type == "meta" for tensor in tensors)


def _outline(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype
    return type(leaf), repr(leaf)


def _stored_bytes(tensor: Tensor) -> int:
    """Bytes that the tensor's elements take in memory, repeats by stride 0 counted once."""
    places = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return int(places * tensor.element_size())
