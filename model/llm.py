"""The language model: Qwen2 with caches that fit what sampling and captioning do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from unipic.model.attention import Way, chosen
from unipic.model.caches import GrowingCache, PromptCache
from unipic.model.config import LlmConfig
from unipic.model.decoder import Decoder


class LanguageModel(nn.Module):
    """Qwen2 with its output embedding, which is the input embedding where the configuration ties them."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen2Model(_qwen2_config(config))
        self.model.config._attn_implementation = "sdpa"
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self._decoder = Decoder(self.model)

    def lay_out(self) -> None:
        """Lay weights out for speed, once they are loaded."""
        self._decoder.join()

    def restore_buffers(self, device: torch.device | str) -> None:
        """Compute anew what no checkpoint holds, after the model was built on the meta device."""
        self.model.rotary_emb = Qwen2RotaryEmbedding(self.model.config).to(device)

    def embed(self, ids: Tensor) -> Tensor:
        """(…,) int64 → (…, D_l)."""
        return self.model.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D_l) → (…, vocabulary)."""
        weight = self.model.embed_tokens.weight if self.config.tied else self.lm_head.weight
        return F.linear(hidden, weight)

    def read_prompts(
        self, embeddings: Tensor, lengths: Tensor, *, room: int = 0, way: Way | None = None
    ) -> tuple[PromptCache, Tensor]:
        """Run right-padded prompts once.

        `embeddings`: (B, P, D_l); `lengths`: (B,) int64, on the CPU or the host waits for them; `room`: the most
        tokens to be read after each prompt; `way`: of attention, None for the device's best. Returns the prompts'
        cache and the last hidden state of each row (B, D_l), after the final norm.
        """
        device, dtype, padded = embeddings.device, embeddings.dtype, embeddings.shape[1]
        way = way or chosen(device, dtype)
        cache = PromptCache(lengths.tolist(), padded=padded, room=room, way=way, device=device)
        positions = torch.arange(padded, device=device)[None]
        hidden = self._decoder.run(embeddings, positions, cache.filling(dtype))
        last = (cache.lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return cache, hidden.gather(1, last).squeeze(1)

    def extend(self, embeddings: Tensor, cache: PromptCache) -> Tensor:
        """Run (B, L, D_l) after the cached prompts, causal, each row at its own positions; the prompts stay cached.

        Returns hidden states (B, L, D_l) after the final norm.
        """
        length = embeddings.shape[1]
        positions = cache.lengths[:, None] + torch.arange(length, device=embeddings.device)
        return self._decoder.run(embeddings, positions, cache.reading(length, embeddings.dtype))

    def step(self, embeddings: Tensor, cache: GrowingCache) -> Tensor:
        """Run one generated token a row, (B, D_l) → hidden states (B, D_l); the cache grows by it."""
        positions, attend = cache.one_more(embeddings.dtype)
        return self._decoder.run(embeddings[:, None], positions, attend)[:, 0]


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
