"""Images made on the spot."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unipic.pipeline.errors import RowError
from unipic.pipeline.images.decode import ImageLimits, decode

LIMITS = ImageLimits(max_px=64_000_000, max_bytes=10_000_000)
RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 255, (64, 48, 3), dtype=np.uint8)


def encoded(picture: Image.Image, image_format: str, **how: Any) -> bytes:
    out = BytesIO()
    picture.save(out, image_format, **how)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width_px: int, height_px: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def refused(data: bytes, limits: ImageLimits = LIMITS) -> RowError:
    with pytest.raises(RowError, match=r".+") as caught:
        decode(data, limits)
    return caught.value
