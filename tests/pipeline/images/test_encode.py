"""Outputs carry their facts, and are checked."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.pipeline.images.samples import LIMITS, PIXELS, encoded
from unipic.pipeline.errors import RowError
from unipic.pipeline.images.decode import check_decodes, decode
from unipic.pipeline.images.encode import encode, facts_of

FACTS = {"prompt": "a <cat> & 犬\n“😀”", "seed": "18446744073709551615", "checkpoint": "sha", "lineage_id": "ab" * 32}


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_outputs_carry_their_facts_and_their_source_type_in_the_same_bytes(image_format: str) -> None:
    data = encode(PIXELS, image_format=image_format, quality=90, facts=FACTS)
    assert data == encode(PIXELS.copy(), image_format=image_format, quality=90, facts=dict(reversed(FACTS.items())))
    assert facts_of(data) == FACTS
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in data
    assert decode(data, LIMITS).size == (48, 64)


def test_png_is_lossless() -> None:
    assert np.array_equal(np.asarray(decode(encode(PIXELS, image_format="png", quality=1, facts={}), LIMITS)), PIXELS)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_prompt_of_a_hundred_thousand_characters_still_encodes(image_format: str) -> None:
    facts = {**FACTS, "prompt": "犬" * 100_000 + "\ud800"}
    kept = facts_of(encode(PIXELS, image_format=image_format, quality=90, facts=facts))
    assert kept["lineage_id"] == FACTS["lineage_id"]
    assert kept["prompt"].startswith("犬" * 5000)


def test_an_output_is_checked_under_a_limit_too() -> None:
    data = encode(PIXELS, image_format="png", quality=1, facts={})
    check_decodes(data, max_px=48 * 64)
    with pytest.raises(RowError, match="the limit is 3,071"):
        check_decodes(data, max_px=48 * 64 - 1)
    with pytest.raises(RowError, match="truncated"):
        check_decodes(data[:-20], max_px=48 * 64)


def test_foreign_and_broken_pictures_have_no_facts() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "someone else's")
    for data in (encoded(Image.fromarray(PIXELS), "PNG", pnginfo=text), encoded(Image.fromarray(PIXELS), "JPEG"), b"x"):
        assert facts_of(data) == {}


def test_encoding_refuses_other_shapes_and_formats() -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        encode(PIXELS.astype(np.float32), image_format="png", quality=90, facts={})
    with pytest.raises(ValueError, match="png, jpeg or webp"):
        encode(PIXELS, image_format="gif", quality=90, facts={})
