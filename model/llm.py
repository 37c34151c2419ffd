"""The language model: transformers' Qwen2 decoder with caches that fit what sampling and captioning do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from unipic.model.config import LlmConfig


class PromptCache:
    """Keys and values of a batch of right-padded prompts: filled by one pass, then read and never grown.

    `lengths`: (B,) int64, the tokens of each row that are not padding; `padded`: the common length P.
    """

    def __init__(self, lengths: Tensor, *, padded: int) -> None:
        self.lengths = lengths
        self.padded = padded
        self.ragged = bool((lengths != padded).any())
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._filling = True

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """What a decoder layer calls with its new keys and values, (B, heads, L, d)."""
        if self._filling:
            self.keys.append(keys)
            self.values.append(values)
            return keys, values
        return torch.cat([self.keys[layer], keys], dim=2), torch.cat([self.values[layer], values], dim=2)

    def close(self) -> None:
        """After this, `update` returns prompt and new tokens together and keeps nothing."""
        self._filling = False

    def rows(self, rows: Sequence[int]) -> PromptCache:
        """A closed cache that holds the given rows, in that order, repeats allowed."""
        index = torch.tensor(rows, device=self.lengths.device)
        picked = PromptCache(self.lengths[index], padded=self.padded)
        picked.keys = [keys[index] for keys in self.keys]
        picked.values = [values[index] for values in self.values]
        picked.close()
        return picked

    def valid(self) -> Tensor:
        """(B, P) bool, False = padding."""
        return torch.arange(self.padded, device=self.lengths.device) < self.lengths[:, None]


class GrowingCache:
    """A prompt cache with space for `room` generated tokens per row, written in place one token at a time.

    Takes over the prompt's keys and values layer by layer, so that memory never holds both.
    """

    def __init__(self, prompt: PromptCache, *, room: int) -> None:
        self._valid = F.pad(prompt.valid(), (0, room), value=True)
        self._next_positions = prompt.lengths
        self._used = prompt.padded
        self._keys = [F.pad(prompt.keys.pop(0), (0, 0, 0, room)) for _ in range(len(prompt.keys))]
        self._values = [F.pad(prompt.values.pop(0), (0, 0, 0, room)) for _ in range(len(prompt.values))]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        start, stop = self._used - keys.shape[2], self._used
        self._keys[layer][:, :, start:stop] = keys
        self._values[layer][:, :, start:stop] = values
        return self._keys[layer][:, :, :stop], self._values[layer][:, :, :stop]

    def advance(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Makes space for a token per row: its positions (B, 1), and its additive mask (B, 1, 1, used)."""
        positions = self._next_positions[:, None]
        self._next_positions = self._next_positions + 1
        self._used += 1
        return positions, additive(self._valid[:, None, None, : self._used], dtype)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not among `rows` (K,)."""
        self._valid = self._valid[rows]
        self._next_positions = self._next_positions[rows]
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask, True = may attend → the same as 0 and -inf, converted once instead of once a layer."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))


class LanguageModel(nn.Module):
    """Qwen2 with its output embedding, which is the input embedding where the configuration ties them."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen2Model(_qwen2_config(config))
        self.model.config._attn_implementation = "sdpa"
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)

    def restore_buffers(self, device: torch.device | str) -> None:
        """Computes the buffers that no checkpoint holds, after the model was built on the meta device."""
        self.model.rotary_emb = Qwen2RotaryEmbedding(self.model.config).to(device)

    def embed(self, ids: Tensor) -> Tensor:
        """(…,) int64 → (…, D_l)."""
        return self.model.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D_l) → (…, vocabulary)."""
        weight = self.model.embed_tokens.weight if self.config.tied else self.lm_head.weight
        return F.linear(hidden, weight)

    def read_prompts(self, embeddings: Tensor, lengths: Tensor) -> tuple[PromptCache, Tensor]:
        """Run right-padded prompts once.

        `embeddings`: (B, P, D_l); `lengths`: (B,) int64. Returns their closed cache and the last hidden state of
        each row (B, D_l), after the final norm.
        """
        padded = embeddings.shape[1]
        cache = PromptCache(lengths, padded=padded)
        positions = torch.arange(padded, device=embeddings.device)[None]
        mask = None
        if cache.ragged:
            causal = positions[:, :, None] >= positions[:, None, :]
            mask = additive((causal & cache.valid()[:, None, :])[:, None], embeddings.dtype)
        hidden = self._run(embeddings, positions, mask, cache)
        cache.close()
        last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return cache, hidden.gather(1, last).squeeze(1)

    def extend(self, embeddings: Tensor, cache: PromptCache) -> Tensor:
        """Run (B, L, D_l) after the cached prompts, causal, each row at its own positions; the cache stays as it is.

        Returns hidden states (B, L, D_l) after the final norm.
        """
        length = embeddings.shape[1]
        steps = torch.arange(length, device=embeddings.device)
        causal = (steps[:, None] >= steps[None, :])[None]
        valid = (cache.valid() if cache.ragged else cache.valid()[:1])[:, None, :]
        allowed = torch.cat(
            [valid.expand(-1, length, -1), causal.expand(valid.shape[0], -1, -1)],
            dim=2,
        )
        mask = additive(allowed[:, None], embeddings.dtype)
        return self._run(embeddings, cache.lengths[:, None] + steps, mask, cache)

    def step(self, embeddings: Tensor, cache: GrowingCache) -> Tensor:
        """Runs one generated token per row, (B, D_l) → hidden states (B, D_l); the cache grows by it."""
        positions, mask = cache.advance(embeddings.dtype)
        return self._run(embeddings[:, None], positions, mask, cache)[:, 0]

    def _run(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None, cache: PromptCache | GrowingCache
    ) -> Tensor:
        return self.model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask={"full_attention": mask},
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state


def _qwen2_config(config: LlmConfig) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tied,
        attn_implementation="sdpa",
    )
