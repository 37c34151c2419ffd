"""Estimates the memory of a batch from a replica's sizes, without loading a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, pi, prod
from typing import Literal

from unipic.model.config import ReplicaConfig

Task = Literal["generate", "edit", "caption"]

MAX_BATCH = 64
# A caption's batch is bound by the memory that its tokens' keys and values take, and gains up to the hundreds.
MAX_CAPTION_BATCH = 256
# Covers uncounted temporaries and allocators that round up.
_MARGIN = 1.15
# Tokens of one row's text, templates included: far above an ordinary prompt, and few beside the image's tokens.
_TEXT_TOKENS = 256
# Feature maps of full resolution alive at once in the VAE: block input, norm, activation, convolution, workspace.
_VAE_LIVE_MAPS = 6


@dataclass(frozen=True)
class Load:
    """A batch: `image_size` in pixels, `iterations` and `steps` of sampling, captions' `new_tokens`."""

    task: Task
    batch: int
    image_size: int
    guided: bool = True
    iterations: int = 32
    steps: int = 100
    new_tokens: int = 0
    masked: bool = True
    """Whether attention needs a mask tensor, as on CPUs."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device: weights, what lives through a whole batch, and the largest temporary need."""

    weights_bytes: int
    held_bytes: int
    peak_activation_bytes: int

    @property
    def working_bytes(self) -> int:
        """All but the weights."""
        return ceil((self.held_bytes + self.peak_activation_bytes) * _MARGIN)

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.working_bytes


@cache
def weight_count(config: ReplicaConfig) -> int:
    """Parameters of a replica; needs torch, which builds it without memory."""
    from unipic.model.unipic import expected_shapes

    return sum(prod(shape) for shape in expected_shapes(config).values())


def estimate(config: ReplicaConfig, load: Load, *, element_bytes: int) -> MemoryEstimate:
    """`element_bytes`: 2 for bfloat16, 4 for float32."""
    mar, llm = config.mar, config.llm
    tokens = config.grid_of(load.image_size) ** 2
    picture = tokens + mar.buffer_tokens
    captioning = load.task == "caption"
    rows = load.batch * (2 if load.guided and not captioning else 1)
    prompt = _TEXT_TOKENS + (0 if load.task == "generate" else picture)
    width = max(mar.encoder_width, mar.decoder_width)
    kv_bytes = 2 * llm.depth * llm.kv_heads * llm.head_width * element_bytes

    read_again = load.new_tokens if captioning else picture
    cached = rows * (prompt + read_again) * kv_bytes
    # x_enc, its z_enc, the decoder's input and its blank sequence, prompt embeddings.
    held = rows * (picture * (3 * width + llm.width) + prompt * llm.width) * element_bytes
    extended = picture if not captioning else 0
    peaks = [
        cached,  # filling one cache while its rows are laid out in another
        _llm_bytes(
            config,
            rows=rows,
            queries=max(extended, prompt),
            keys=prompt + extended,
            element=element_bytes,
            masked=load.masked,
        ),
        rows * picture * (2 * max(mar.encoder_mlp, mar.decoder_mlp) + 7 * width) * element_bytes,
        _vae_bytes(config, load, element=element_bytes),
    ]
    if not captioning:
        revealed = load.batch * min(tokens, ceil(tokens * pi / 2 / load.iterations) + 1)
        held += load.steps * revealed * config.vae.latent_channels * 4
        # All blocks' modulations at once, a third of them twice, and the blocks' own activations.
        peaks.append(2 * revealed * mar.head_width * (4 * mar.head_depth + 10) * element_bytes)
    else:
        peaks.append(load.batch * llm.vocab_size * (element_bytes + 4))
    return MemoryEstimate(weight_count(config) * element_bytes, held + cached, max(peaks))


def _llm_bytes(config: ReplicaConfig, *, rows: int, queries: int, keys: int, element: int, masked: bool) -> int:
    llm = config.llm
    mask = queries * keys * (2 * element + 1) if masked else 0
    attention = (queries * 3 + keys * 3) * llm.width * element
    feed_forward = queries * (3 * llm.mlp * element + llm.width * (2 * element + 8))
    return rows * (mask + max(attention, feed_forward))


def _vae_bytes(config: ReplicaConfig, load: Load, *, element: int) -> int:
    pixels = max(load.image_size**2, min(load.batch * load.image_size**2, 1024 * 1024))
    places = config.grid_of(load.image_size) ** 2
    attention = places * places * (element + 4)
    return pixels * config.vae.base_width * _VAE_LIVE_MAPS * element + attention


def largest_batch(config: ReplicaConfig, load: Load, *, element_bytes: int, free_bytes: int) -> int:
    """The largest batch of this kind whose work fits `free_bytes` beside the loaded weights; at least 1."""
    low, high = 1, MAX_CAPTION_BATCH if load.task == "caption" and not load.masked else MAX_BATCH
    while low < high:
        middle = (low + high + 1) // 2
        tried = Load(**{**load.__dict__, "batch": middle})
        if estimate(config, tried, element_bytes=element_bytes).working_bytes <= free_bytes:
            low = middle
        else:
            high = middle - 1
    return low
