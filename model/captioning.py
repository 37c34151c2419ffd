"""Greedy decoding of answers about images: a table of places that rows take, leave and are followed at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unipic.model.caches import GrowingCache
from unipic.model.replay import Step, captured
from unipic.model.unipic import UniPic

# Tokens between two looks at what was generated: on a card each look waits for the device.
_TOKENS_A_LOOK = 8
# With no row waiting, the table is cut down to the rows that run once they are this share of it or less.
_COMPACT_SHARE, _COMPACT_SHARE_ON_CARDS = 0.75, 0.5
# Rows are read into free places together, once so many of the places are free.
_REFILL_SHARE = 0.125

ReadPrompts = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Rows → their prompts' embeddings (B, P, D_l), right-padded, and lengths (B,) int64 on the CPU."""


@torch.inference_mode()
def greedy(
    model: UniPic,
    read: ReadPrompts,
    *,
    rows: int,
    places: int,
    longest: int,
    end_id: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """Most likely continuation of each of `rows` prompts.

    `places`: rows that run at once, a finished one's place is taken by the next; `longest`: tokens of the longest
    prompt. Returns ids without `end_id`, each list at most `max_new_tokens` long.
    """
    table = _Table(model, read, end_id=end_id, max_new_tokens=max_new_tokens, longest=longest)
    waiting = deque(range(rows))
    table.fill([waiting.popleft() for _ in range(min(places, rows))])
    while table.running:
        table.generate()
        free = table.free
        enough = len(free) >= _REFILL_SHARE * table.places or not table.running
        if waiting and free and enough:
            table.refill(free[: len(waiting)], [waiting.popleft() for _ in free[: len(waiting)]])
        elif not waiting:
            table.compact()
    return [table.answers[row] for row in range(rows)]


class _Table:
    """Places with a row each; every place generates at every step, what a finished one generates is dropped."""

    def __init__(self, model: UniPic, read: ReadPrompts, *, end_id: int, max_new_tokens: int, longest: int) -> None:
        self._model, self._read = model, read
        self._end_id, self._limit, self._longest = end_id, max_new_tokens, longest
        self._on_card = model.device.type == "cuda"
        self._look = _TOKENS_A_LOOK if model.device.type != "cpu" else 1
        self._owners: list[int | None] = []
        self.answers: dict[int, list[int]] = {}

    @property
    def places(self) -> int:
        return len(self._owners)

    @property
    def running(self) -> list[int]:
        return [place for place, owner in enumerate(self._owners) if owner is not None]

    @property
    def free(self) -> list[int]:
        return [place for place, owner in enumerate(self._owners) if owner is None]

    def fill(self, rows: Sequence[int]) -> None:
        """The first rows, a place each."""
        embeddings, lengths = self._read(rows)
        room = self._longest + self._limit + self._look - embeddings.shape[1]
        prompt, hidden = self._model.llm.read_prompts(embeddings, lengths, room=room)
        self._cache = GrowingCache(prompt)
        self._ids = self._next(hidden)
        self._owners = list(rows)
        self._fresh: set[int] = set(range(len(rows)))
        self.answers |= {row: [] for row in rows}
        self._step = self._captured()

    def refill(self, places: Sequence[int], rows: Sequence[int]) -> None:
        """Let waiting rows take free places; nothing moves, so that a captured step stays good."""
        prompt, hidden = self._model.llm.read_prompts(*self._read(rows))
        self._cache.replace(places, prompt)
        self._ids[torch.tensor(places, device=self._ids.device)] = self._next(hidden)
        for place, row in zip(places, rows, strict=True):
            self._owners[place] = row
            self.answers[row] = []
        self._fresh |= set(places)

    def compact(self) -> None:
        """Drop free places where few rows are left."""
        running = self.running
        share = _COMPACT_SHARE_ON_CARDS if self._on_card else _COMPACT_SHARE
        if not running or len(running) > share * self.places:
            return
        self._cache.keep(running)
        self._ids = self._ids[torch.tensor(running, device=self._ids.device)]
        self._owners = [self._owners[place] for place in running]
        self._step = self._captured()

    def generate(self) -> None:
        """A few tokens a place, then one look at them: whose row is finished leaves its place."""
        made = []
        if self._fresh:  # the prompt's own last state has told these their first token
            made.append(self._ids.clone())
            fresh, self._fresh = self._fresh, set()
            self._take(torch.stack(made, dim=1), only=fresh)
            if not self.running:
                return
            made = []
        for _ in range(self._look):
            self._step()
            self._cache.advanced()
            made.append(self._ids.clone())
        self._take(torch.stack(made, dim=1))

    def _take(self, made: Tensor, only: set[int] | None = None) -> None:
        """`made`: (B, tokens) ids; of the places in `only`, or of all."""
        for place, tokens in enumerate(made.tolist()):
            owner = self._owners[place]
            if owner is None or (only is not None and place not in only):
                continue
            answer = self.answers[owner]
            for token in tokens:
                if token != self._end_id:
                    answer.append(token)
                if token == self._end_id or len(answer) == self._limit:
                    self._owners[place] = None
                    break

    def _captured(self) -> Step:
        ids, cache, llm = self._ids, self._cache, self._model.llm

        def step() -> None:
            ids.copy_(self._next(llm.step(llm.embed(ids), cache)))

        if not self._on_card:
            return step
        kept = ids.clone(), cache.used.clone()
        replay = captured(step, ids.device)
        ids.copy_(kept[0])  # warming up has generated some tokens already; their places are written again
        cache.used.copy_(kept[1])
        return replay

    def _next(self, hidden: Tensor) -> Tensor:
        """(B, D_l) → (B,) int64."""
        return self._model.llm.logits(hidden).argmax(dim=-1)
