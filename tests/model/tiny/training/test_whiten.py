from __future__ import annotations

import pytest
import torch

from unipic.model.tiny.training.sizes import tiny_config
from unipic.model.tiny.training.whiten import whiten
from unipic.model.vae import Vae


@pytest.fixture(scope="module")
def vae() -> Vae:
    torch.manual_seed(0)
    return Vae(tiny_config(scale=1.0).vae).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def test_whitened_latents_decode_to_the_same_pictures_and_are_what_the_encoder_now_gives(
    vae: Vae, pixels: torch.Tensor
) -> None:
    before = vae.encode(pixels)
    pictures = vae.decode(before)
    changed = whiten(vae, before, floor=1e-3)
    torch.testing.assert_close(vae.encode(pixels), changed, atol=2e-3, rtol=0)
    torch.testing.assert_close(vae.decode(changed), pictures, atol=2e-3, rtol=0)


def test_whitened_latents_have_mean_0_spread_1_and_no_direction_above_the_others(
    vae: Vae, pixels: torch.Tensor
) -> None:
    changed = whiten(vae, vae.encode(pixels), floor=1e-6).flatten(0, 1)
    torch.testing.assert_close(torch.cov(changed.T), torch.eye(16), atol=2e-2, rtol=0)
    assert abs(float(changed.mean())) < 1e-4
