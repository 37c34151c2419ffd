"""Sizes of one replica, frozen, read from and written to a checkpoint's `config.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = "unipic-batch-checkpoint"
FORMAT_VERSION = 1

PUBLISHED_GRID = 32  # tokens along one side that the published checkpoint's position tables cover
PUBLISHED_IMAGE_SIZE = 1024

MOST = 2**24
MOST_LAYERS = 1024


def _positive(owner: object, *names: str) -> None:
    """Raises ValueError for sizes that no replica has: a damaged or hostile `config.json` must not cost hours."""
    for name in names:
        value, most = getattr(owner, name), MOST_LAYERS if name.endswith(("depth", "blocks")) else MOST
        if type(value) is not int or value < 1:
            raise ValueError(f"{type(owner).__name__}.{name} must be at least 1, got {value!r:.40}")
        if value > most:
            raise ValueError(f"{type(owner).__name__}.{name} must be at most {most:,}, got {value!r:.40}")


def _divides(owner: object, whole: str, part: str) -> None:
    if getattr(owner, whole) % getattr(owner, part):
        raise ValueError(
            f"{type(owner).__name__}.{whole} ({getattr(owner, whole)}) must be divisible by "
            f"{part} ({getattr(owner, part)})"
        )


@dataclass(frozen=True)
class VaeConfig:
    """KL autoencoder; the stride is 2 ** (levels - 1)."""

    base_width: int
    multipliers: tuple[int, ...]
    residual_blocks: int
    z_channels: int
    latent_channels: int
    norm_groups: int
    encoder_attention_levels: tuple[int, ...]
    scale: float

    def __post_init__(self) -> None:
        _positive(self, "base_width", "residual_blocks", "z_channels", "latent_channels", "norm_groups")
        _divides(self, "base_width", "norm_groups")
        if not 1 <= len(self.multipliers) <= 10 or min(self.multipliers) < 1 or max(self.multipliers) > 1024:
            raise ValueError(
                f"VaeConfig.multipliers must be 1 to 10 numbers from 1 to 1024, got {self.multipliers!r:.80}"
            )
        if not 0 < self.scale < math.inf:
            raise ValueError(f"VaeConfig.scale must be positive, got {self.scale}")

    @property
    def stride(self) -> int:
        return int(2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True)
class MarConfig:
    """Masked autoregressive encoder and decoder, and its diffusion head."""

    encoder_width: int
    encoder_depth: int
    encoder_heads: int
    encoder_mlp: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    decoder_mlp: int
    buffer_tokens: int
    grid: int
    head_width: int
    head_depth: int

    def __post_init__(self) -> None:
        _positive(self, *(field.name for field in fields(self)))
        _divides(self, "encoder_width", "encoder_heads")
        _divides(self, "decoder_width", "decoder_heads")


@dataclass(frozen=True)
class LlmConfig:
    """Qwen2 decoder."""

    vocab_size: int
    width: int
    mlp: int
    depth: int
    heads: int
    kv_heads: int
    max_positions: int
    rope_theta: float
    norm_eps: float
    tied: bool

    def __post_init__(self) -> None:
        _positive(self, "vocab_size", "width", "mlp", "depth", "heads", "kv_heads", "max_positions")
        _divides(self, "width", "heads")
        _divides(self, "heads", "kv_heads")
        if not (0 < self.rope_theta < math.inf and 0 < self.norm_eps < 1):
            raise ValueError(
                f"LlmConfig.rope_theta ({self.rope_theta}) and norm_eps ({self.norm_eps}) must be positive"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class ReplicaConfig:
    """All sizes of one replica. `max_prompt_tokens` bounds the text of one row, templates included."""

    vae: VaeConfig
    mar: MarConfig
    llm: LlmConfig
    max_prompt_tokens: int = 2048

    def __post_init__(self) -> None:
        _positive(self, "max_prompt_tokens")

    @property
    def trained_image_size(self) -> int:
        """Side in pixels of the images whose token grid the learned positions cover without resizing."""
        return self.mar.grid * self.vae.stride

    @property
    def default_image_size(self) -> int:
        """Side in pixels of images of jobs that name none: the trained size of a small model, else 1024.

        The published checkpoint's positions cover 512 pixels, and 1024 is the size that its authors vouch for.
        """
        return self.trained_image_size if self.mar.grid < PUBLISHED_GRID else PUBLISHED_IMAGE_SIZE

    def grid_of(self, image_size: int) -> int:
        """Tokens along one side of an `image_size` image; raises ValueError if the stride does not divide it."""
        if image_size < self.vae.stride or image_size % self.vae.stride:
            raise ValueError(f"image_size ({image_size}) must be a positive multiple of {self.vae.stride}")
        return image_size // self.vae.stride


def published() -> ReplicaConfig:
    """Sizes of the published 1.5B checkpoint (positions trained for a 32×32 token grid)."""
    return ReplicaConfig(
        vae=VaeConfig(
            base_width=128,
            multipliers=(1, 1, 2, 2, 4),
            residual_blocks=2,
            z_channels=16,
            latent_channels=16,
            norm_groups=32,
            encoder_attention_levels=(4,),
            scale=0.2325,
        ),
        mar=MarConfig(
            encoder_width=1280,
            encoder_depth=20,
            encoder_heads=16,
            encoder_mlp=5120,
            decoder_width=1280,
            decoder_depth=20,
            decoder_heads=16,
            decoder_mlp=5120,
            buffer_tokens=64,
            grid=32,
            head_width=1536,
            head_depth=12,
        ),
        llm=LlmConfig(
            vocab_size=151_936,
            width=1536,
            mlp=8960,
            depth=28,
            heads=12,
            kv_heads=2,
            max_positions=32_768,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            tied=True,
        ),
    )


def tiny(*, image_size: int = 64, vocab_size: int = 704) -> ReplicaConfig:
    """Sizes for tests: milliseconds per image on one CPU core."""
    vae = VaeConfig(
        base_width=8,
        multipliers=(1, 1, 2, 2, 4),
        residual_blocks=1,
        z_channels=16,
        latent_channels=16,
        norm_groups=4,
        encoder_attention_levels=(4,),
        scale=0.2325,
    )
    if image_size % vae.stride:
        raise ValueError(f"image_size ({image_size}) must be divisible by {vae.stride}")
    return ReplicaConfig(
        vae=vae,
        mar=MarConfig(
            encoder_width=48,
            encoder_depth=2,
            encoder_heads=4,
            encoder_mlp=192,
            decoder_width=48,
            decoder_depth=2,
            decoder_heads=4,
            decoder_mlp=192,
            buffer_tokens=8,
            grid=image_size // vae.stride,
            head_width=64,
            head_depth=2,
        ),
        llm=LlmConfig(
            vocab_size=vocab_size,
            width=64,
            mlp=160,
            depth=2,
            heads=4,
            kv_heads=2,
            max_positions=8192,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            tied=True,
        ),
    )


def to_json(config: ReplicaConfig) -> str:
    """The text of `config.json`, with sorted keys so that equal sizes give equal bytes."""
    body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(config)}
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> ReplicaConfig:
    """Read `config.json`. Raises ValueError for another format, or for missing, unknown or impossible fields."""
    body = json.loads(text)
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise ValueError(f"not a {FORMAT} config")
    version = body.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version {version} is not supported, this code reads {FORMAT_VERSION}")
    parts = {"vae": VaeConfig, "mar": MarConfig, "llm": LlmConfig}
    built = {name: _build(kind, body.pop(name, None), place=name) for name, kind in parts.items()}
    return ReplicaConfig(**built, **_checked(ReplicaConfig, body, place="config", given=set(built)))


def read(path: Path) -> ReplicaConfig:
    return from_json(path.read_text(encoding="utf-8"))


def _build(kind: type, body: Any, *, place: str) -> Any:
    if not isinstance(body, dict):
        raise ValueError(f"{place} must be an object")
    values = _checked(kind, body, place=place, given=set())
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _checked(kind: type, body: dict[str, Any], *, place: str, given: set[str]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)} - given
    faults = [f"{place}.{name} is missing" for name in sorted(names - body.keys())]
    faults += [f"{place}.{name} is unknown" for name in sorted(body.keys() - names)]
    if faults:
        raise ValueError("; ".join(faults))
    return body
