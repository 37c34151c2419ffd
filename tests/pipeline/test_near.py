"""A guess helps or is not made: it never means the opposite."""

from __future__ import annotations

import pytest

from unipic.pipeline.near import near


@pytest.mark.parametrize(
    ("name", "known", "guess"),
    [
        ("image_sise", ["image_size", "image_format"], "image_size"),
        ("prompts", ["prompt", "negative_prompt"], "prompt"),
        ("prompt", ["negative_prompt"], None),
        ("min_rejected", ["max_rejected"], None),
        ("deny_http", ["allow_http"], None),
        ("disallow_http", ["allow_http"], None),
        ("alow_http", ["allow_http"], "allow_http"),
        ("input_uri", ["output_uri"], None),
        ("min_image_mb", ["max_image_mb", "min_image_mpx"], "min_image_mpx"),
    ],
)
def test_a_guess_is_close_and_never_the_opposite(name: str, known: list[str], guess: str | None) -> None:
    assert near(name, known, cutoff=0.5) == guess
