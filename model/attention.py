"""Attention of new tokens to cached and new ones, by the best way the device and its torch have.

Queries are (B, L, H, d), keys and values (B, T, G, d): a static buffer in which row i's tokens fill the first
`used[i]` places. The last query reads all of these, each earlier one a place less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

varlen_attn: Callable[..., Tensor] | None
try:
    varlen_attn = import_module("torch.nn.attention.varlen").varlen_attn
except ImportError:  # torch below 2.13 has none, or one without grouped heads and static caches
    varlen_attn = None

Way = Literal["varlen", "grouped", "masked"]
"""varlen: one kernel for rows of all lengths. grouped: one for each length. masked: one with a mask tensor."""

_HALF = (torch.bfloat16, torch.float16)


def chosen(device: torch.device, dtype: torch.dtype) -> Way:
    """The way to go on this device. A tensor without data stands for one on a card."""
    if device.type == "cpu":
        return "masked"
    return "varlen" if dtype in _HALF and has_varlen() else "grouped"


def has_varlen() -> bool:
    """Whether this torch's variable-length attention takes grouped heads and static caches."""
    if varlen_attn is None:
        return False
    return {"enable_gqa", "seqused_k", "num_splits"} <= set(signature(varlen_attn).parameters)


class Varlen:
    """Flash attention over all rows at once; how a row's sums are split depends on no other row."""

    def __init__(self, *, rows: int, queries: int, room: int, most: int, used: Tensor) -> None:
        """`used`: (B,) int, at most `most`; `room`: T."""
        device = used.device
        self._queries, self._most = queries, most
        self._query_starts = torch.arange(0, (rows + 1) * queries, queries, dtype=torch.int32, device=device)
        self._key_starts = torch.arange(0, (rows + 1) * room, room, dtype=torch.int32, device=device)
        self._used = used.to(torch.int32)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert varlen_attn is not None
        out = varlen_attn(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            self._query_starts,
            self._key_starts,
            self._queries,
            self._most,
            window_size=(-1, 0),
            enable_gqa=True,
            seqused_k=self._used,
            num_splits=1,
        )
        return out.view_as(q)


class Grouped:
    """Rows of one length go together; no mask tensor."""

    def __init__(self, used: Sequence[int], *, device: torch.device) -> None:
        lengths = sorted(set(used))
        rows = [[row for row, length in enumerate(used) if length == one] for one in lengths]
        self._groups = [
            (length, None if len(lengths) == 1 else torch.tensor(some, device=device))
            for length, some in zip(lengths, rows, strict=True)
        ]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for length, rows in self._groups:
            if rows is None:
                return _causal(q, k[:, :length], v[:, :length])
            out[rows] = _causal(q[rows], k[rows, :length], v[rows, :length])
        return out


class Masked:
    """The reference: one call with an additive mask (B or 1, 1, L, T)."""

    def __init__(self, mask: Tensor | None) -> None:
        self._mask = mask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _attend(q, k, v, self._mask)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask, True = may attend → the same as 0 and -inf, converted once instead of once a layer."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    if queries == 1 or queries == keys:
        return _attend(q, k, v, None, causal=queries > 1)
    return _attend(q, k, v, causal_lower_right(queries, keys))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
    if q.device.type == "cuda" and q.dtype not in _HALF:
        # In float32 only the kernel without grouped heads keeps no queries × keys tensor.
        k, v = (part.repeat_interleave(q.shape[2] // part.shape[2], dim=2) for part in (k, v))
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True).transpose(1, 2)
