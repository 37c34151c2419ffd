"""Greedy decoding of answers about images, batched."""

from __future__ import annotations

import torch
from torch import Tensor

from unipic.model.llm import GrowingCache
from unipic.model.unipic import UniPic

# Below this share of unfinished rows, the batch shrinks to them.
_COMPACT_SHARE = 0.75


@torch.inference_mode()
def greedy(model: UniPic, embeddings: Tensor, lengths: Tensor, *, end_id: int, max_new_tokens: int) -> list[list[int]]:
    """Most likely continuation of each prompt.

    `embeddings`: (B, P, D_l), right-padded; `lengths`: (B,) int64.
    Returns B lists of ids, without `end_id`, each at most `max_new_tokens` long.
    """
    answers: list[list[int]] = [[] for _ in range(embeddings.shape[0])]
    prompt, hidden = model.llm.read_prompts(embeddings, lengths)
    cache = GrowingCache(prompt, room=max_new_tokens)
    running = list(range(len(answers)))
    finished: set[int] = set()
    for count in range(1, max_new_tokens + 1):
        ids = model.llm.logits(hidden).argmax(dim=-1)
        for row, token in zip(running, ids.tolist(), strict=True):
            if row in finished:
                continue
            if token == end_id:
                finished.add(row)
            else:
                answers[row].append(token)
        left = [place for place, row in enumerate(running) if row not in finished]
        if not left or count == max_new_tokens:
            break
        if len(left) <= _COMPACT_SHARE * len(running):
            kept = torch.tensor(left, device=ids.device)
            cache.keep(kept)
            ids, running = ids[kept], [running[place] for place in left]
        hidden = model.llm.step(model.llm.embed(ids), cache)
    return answers
