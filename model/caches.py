"""Keys and values of tokens already read, in buffers that are allocated once and written in place.

One buffer a layer, (B, T, G, d): as the attention kernels take them, so that nothing is copied, repeated or joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unipic.model.attention import Grouped, Masked, Varlen, Way, additive
from unipic.model.decoder import Attend


class PromptCache:
    """Right-padded prompts, read once, and room behind them for tokens that are read after them again and again.

    `lengths`: (B,) int64 on the device, the tokens of each row that are not padding; `padded`: the common length P.
    """

    def __init__(self, lengths: Sequence[int], *, padded: int, room: int, way: Way, device: torch.device) -> None:
        """`room`: the most tokens that `extend` will read at once."""
        self.host_lengths = tuple(lengths)
        self.lengths = torch.tensor(self.host_lengths, device=device)
        self.padded, self.room, self.way = padded, room, way
        self.ragged = any(length != padded for length in self.host_lengths)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def rows(self) -> int:
        return len(self.host_lengths)

    def filling(self, dtype: torch.dtype) -> Attend:
        """Reads the padded prompts themselves, causal, and keeps their keys and values."""
        attention = self._attention_within(dtype)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            assert layer == len(self.keys)
            for kept, new in ((self.keys, k), (self.values, v)):
                # Zeros, for a masked place is multiplied by no weight, and what memory held before may be no number.
                buffer = new.new_zeros(new.shape[0], self.padded + self.room, *new.shape[2:])
                buffer[:, : self.padded] = new
                kept.append(buffer)
            return attention(q, k, v)

        return attend

    def reading(self, length: int, dtype: torch.dtype) -> Attend:
        """Reads `length` tokens a row after its prompt, causal; what was read before them is overwritten."""
        if length > self.room:
            raise ValueError(f"the cache has room for {self.room} tokens after its prompts, not for {length}")
        masked = self.way == "masked"
        together = masked or not self.ragged
        attention = self._attention_after(length, dtype)
        stop = self.padded + length
        steps = torch.arange(length, device=self.lengths.device)
        places = None if together else (self.lengths[:, None] + steps)[:, :, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for buffer, new in ((self.keys[layer], k), (self.values[layer], v)):
                if places is None:
                    buffer[:, self.padded : stop] = new
                else:
                    buffer.scatter_(1, places.expand_as(new), new)
            if masked:
                return attention(q, self.keys[layer][:, :stop], self.values[layer][:, :stop])
            return attention(q, self.keys[layer], self.values[layer])

        return attend

    def take(self, rows: Sequence[int], *, room: int) -> PromptCache:
        """A cache that holds the prompts of the given rows, in that order, repeats allowed."""
        picked = PromptCache(
            [self.host_lengths[row] for row in rows],
            padded=self.padded,
            room=room,
            way=self.way,
            device=self.lengths.device,
        )
        index = torch.tensor(rows, device=self.lengths.device)
        for ours, theirs in ((self.keys, picked.keys), (self.values, picked.values)):
            for buffer in ours:
                new = buffer.new_zeros(len(rows), self.padded + room, *buffer.shape[2:])
                new[:, : self.padded] = buffer[index, : self.padded]
                theirs.append(new)
        return picked

    def part(self, rows: slice) -> PromptCache:
        """A cache of consecutive rows, in the same memory."""
        lengths = self.host_lengths[rows]
        taken = PromptCache(lengths, padded=self.padded, room=self.room, way=self.way, device=self.lengths.device)
        taken.keys = [buffer[rows] for buffer in self.keys]
        taken.values = [buffer[rows] for buffer in self.values]
        return taken

    def valid(self) -> Tensor:
        """(B, P) bool, False = padding."""
        return torch.arange(self.padded, device=self.lengths.device) < self.lengths[:, None]

    def _attention_within(self, dtype: torch.dtype) -> Masked | Grouped:
        if self.way != "masked" or not self.ragged:
            # Padding is behind every token that is not, and causal attention never looks behind.
            return Grouped([self.padded] * self.rows, device=self.lengths.device)
        places = torch.arange(self.padded, device=self.lengths.device)[None]
        causal = places[:, :, None] >= places[:, None, :]
        return Masked(additive((causal & self.valid()[:, None, :])[:, None], dtype))

    def _attention_after(self, length: int, dtype: torch.dtype) -> Varlen | Grouped | Masked:
        if self.way == "varlen":
            room = self.padded + self.room
            most = max(self.host_lengths) + length
            return Varlen(rows=self.rows, queries=length, room=room, most=most, used=self.lengths + length)
        if self.way == "grouped":
            return Grouped([one + length for one in self.host_lengths], device=self.lengths.device)
        steps = torch.arange(length, device=self.lengths.device)
        causal = (steps[:, None] >= steps[None, :])[None]
        valid = (self.valid() if self.ragged else self.valid()[:1])[:, None, :]
        rows = valid.shape[0]
        allowed = torch.cat([valid.expand(-1, length, -1), causal.expand(rows, -1, -1)], dim=2)
        return Masked(additive(allowed[:, None], dtype))


class GrowingCache:
    """Prompts with room for generated tokens, one buffer a layer; every row has its own length.

    On a card no shape depends on how far the rows are, so that one captured step serves all steps.
    """

    def __init__(self, prompt: PromptCache) -> None:
        self.keys, self.values = prompt.keys, prompt.values
        self.used = prompt.lengths.clone()
        self._host_used = list(prompt.host_lengths)
        self._way, self._room = prompt.way, prompt.padded + prompt.room
        self._places = torch.arange(self._room, device=self.used.device)

    @property
    def rows(self) -> int:
        return len(self._host_used)

    def advanced(self) -> None:
        """The host's own count of a step; the device counts in `one_more`."""
        self._host_used = [min(used + 1, self._room) for used in self._host_used]

    def one_more(self, dtype: torch.dtype) -> tuple[Tensor, Attend]:
        """Positions (B, 1) of one further token a row, and how it attends; each row is one token longer then."""
        # A row that is finished may be run on; it writes at its last place, and its answer is read no more.
        positions = self.used.clamp(max=self._room - 1)[:, None]
        self.used += 1
        index = positions[:, :, None, None]
        attention, stop = self._attention(dtype)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for buffer, new in ((self.keys[layer], k), (self.values[layer], v)):
                buffer.scatter_(1, index.expand_as(new), new)
            return attention(q, self.keys[layer][:, :stop], self.values[layer][:, :stop])

        return positions, attend

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every row that is not among `rows`."""
        index = torch.tensor(rows, device=self.used.device)
        self.used = self.used[index]
        self._host_used = [self._host_used[row] for row in rows]
        for layer in range(len(self.keys)):
            self.keys[layer] = self.keys[layer][index]
            self.values[layer] = self.values[layer][index]

    def replace(self, rows: Sequence[int], prompt: PromptCache) -> None:
        """Let the rows of `prompt` take the places of `rows`; it may be padded to another length."""
        index = torch.tensor(rows, device=self.used.device)
        self.used[index] = prompt.lengths
        for row, length in zip(rows, prompt.host_lengths, strict=True):
            self._host_used[row] = length
        length = min(prompt.padded, self._room)
        for ours, theirs in ((self.keys, prompt.keys), (self.values, prompt.values)):
            for buffer, new in zip(ours, theirs, strict=True):
                buffer[index, :length] = new[:, :length]

    def _attention(self, dtype: torch.dtype) -> tuple[Varlen | Masked, int]:
        if self._way == "varlen":
            used = self.used.clamp(max=self._room)
            attention = Varlen(rows=self.rows, queries=1, room=self._room, most=self._room, used=used)
            return attention, self._room
        # Without a graph, what no row has reached need not be read.
        stop = min(max(self._host_used) + 1, self._room) if self._way == "masked" else self._room
        return Masked(additive((self._places[:stop] < self.used[:, None])[:, None, None], dtype)), stop
