from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unipic.model import diffusion
from unipic.model.caches import PromptCache
from unipic.model.config import tiny
from unipic.model.engine import Engine, GenerateItem, SamplingSettings
from unipic.model.head import DiffusionHead
from unipic.model.head_sampler import HeadSampler
from unipic.model.mar import Mar, resize_positions
from unipic.model.noise import SeededNoise
from unipic.model.sampling import SamplerOptions, reveals


def options(iterations: int, *, guidance: float = 3.0, schedule: str = "constant") -> SamplerOptions:
    return SamplerOptions(iterations, guidance, schedule, 1.0, 10)  # type: ignore[arg-type]


@given(tokens=st.integers(1, 300), iterations=st.integers(1, 80))
def test_every_token_is_revealed_exactly_once(tokens: int, iterations: int) -> None:
    plan = reveals(tokens, options(iterations))
    assert [step.masked_before for step in plan] == [tokens, *(step.masked_after for step in plan[:-1])]
    assert all(step.masked_after < step.masked_before for step in plan)
    assert plan[-1].masked_after == 0


def test_the_published_grid_is_revealed_along_the_cosine() -> None:
    plan = reveals(4096, options(32))
    assert [step.masked_after for step in plan[:-1]] == [
        math.floor(4096 * math.cos(math.pi / 2 * (i + 1) / 32)) for i in range(31)
    ]


def test_linear_guidance_rises_from_near_one_to_almost_the_whole() -> None:
    plan = reveals(16, options(4, guidance=5.0, schedule="linear"))
    masked = [14, 11, 6, 1]
    assert [step.guidance for step in plan] == [1 + 4 * (16 - m) / 16 for m in masked]


def test_a_rows_randomness_is_its_seeds_alone() -> None:
    def drawn(seeds: list[int], row: int) -> tuple[list[int], torch.Tensor]:
        noise = SeededNoise(seeds, tokens=9, channels=4, steps=5)
        order = noise.orders()
        parts = [noise.draw(order[:, 6:]), noise.draw(order[:, :6])]
        return order[row].tolist(), torch.cat([part[:, row] for part in parts], dim=1)

    order, values = drawn([11], 0)
    for seeds, row in (([11, 4], 0), ([4, 2**64 - 1, 11], 2)):
        other_order, other_values = drawn(seeds, row)
        assert other_order == order
        assert torch.equal(other_values, values)
    assert sorted(order) == list(range(9))


def test_noise_is_standard_normal() -> None:
    noise = SeededNoise([1, 2], tokens=64, channels=16, steps=50)
    values = noise.draw(noise.orders())
    assert values.shape == (50, 2, 64, 16)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"a seed must be from 0 to .*, got {seed}"):
        SeededNoise([seed], tokens=4, channels=4, steps=5)


@pytest.mark.parametrize("count", [0, 1001])
def test_sampling_steps_outside_the_training_schedule_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"diffusion steps must be from 1 to 1000, got {count}"):
        diffusion.kept_steps(count)


@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_sampling_tables_are_finite_at_any_length(count: int) -> None:
    tables = diffusion.tables(count)
    assert len(tables.steps) == count
    for values in (tables.betas, tables.posterior_log_variance, tables.log_betas, tables.posterior_mean_coef1):
        assert values.shape == (count,)
        assert np.isfinite(values).all()


def test_half_of_the_guided_sampler_gives_what_both_halves_would() -> None:
    torch.manual_seed(0)
    head = DiffusionHead(channels=4, condition_width=8, width=16, depth=2).eval()
    z = torch.randn(6, 8)
    noise = torch.randn(10, 3, 4)
    with torch.inference_mode():
        found = HeadSampler(head, steps=10, temperature=0.9).sample(z, noise, guidance=2.0)
        expected = _both_halves(head, z, noise, guidance=2.0, temperature=0.9)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def _both_halves(
    head: DiffusionHead, z: torch.Tensor, noise: torch.Tensor, *, guidance: float, temperature: float
) -> torch.Tensor:
    tables, x = diffusion.tables(10), torch.cat([noise[0], noise[0]])
    for call, step in enumerate(reversed(range(10)), start=1):
        out = head(x, torch.full((6,), tables.steps[step]), z)
        estimate, v = out.chunk(2, dim=-1)
        known, free = estimate.chunk(2)
        estimate = (free + guidance * (known - free)).repeat(2, 1)
        clean = x * math.sqrt(1 / tables.alphas_cumprod[step]) - estimate * math.sqrt(
            1 / tables.alphas_cumprod[step] - 1
        )
        mean = clean * float(tables.posterior_mean_coef1[step]) + x * float(tables.posterior_mean_coef2[step])
        share = (v + 1) / 2
        log_variance = share * float(tables.log_betas[step]) + (1 - share) * float(tables.posterior_log_variance[step])
        x = mean
        if step:
            x = x + temperature * torch.exp(log_variance / 2) * noise[call].repeat(2, 1)
    return x[:3]


def test_positions_of_the_trained_grid_are_not_touched_and_buffers_never() -> None:
    learned = torch.randn(1, 8 + 16, 6)
    assert resize_positions(learned, buffers=8, grid=4) is learned
    resized = resize_positions(learned, buffers=8, grid=6)
    assert resized.shape == (1, 8 + 36, 6)
    assert torch.equal(resized[:, :8], learned[:, :8])


def test_what_is_masked_is_never_read() -> None:
    torch.manual_seed(0)
    mar = Mar(tiny().mar, latent_channels=16).eval()
    visible = torch.tensor([[1, 5, 9]])
    latents = torch.randn(1, 16, 16)
    poisoned = torch.full_like(latents, float("nan"))
    poisoned[:, [1, 5, 9]] = latents[:, [1, 5, 9]]
    with torch.inference_mode():
        positions = mar.positions(4)
        found = mar.encode(poisoned, positions, visible=visible)
        assert torch.equal(found, mar.encode(latents, positions, visible=visible))
    assert found.shape == (1, 8 + 3, 48)


def test_reading_past_a_prompt_leaves_it_as_it_was(engine: Engine) -> None:
    llm = engine.model.llm
    torch.manual_seed(0)
    prompts, first, second = (torch.randn(2, length, 64) for length in (5, 7, 3))
    with torch.inference_mode():
        cache, _ = llm.read_prompts(prompts, torch.tensor([5, 3]), room=7)
        alone = llm.extend(second, cache)
        llm.extend(first, cache)
        assert torch.equal(llm.extend(second, cache), alone)


def test_a_cache_without_room_for_what_is_read_says_how_much_it_has(engine: Engine) -> None:
    with torch.inference_mode():
        cache, _ = engine.model.llm.read_prompts(torch.randn(1, 5, 64), torch.tensor([5]), room=2)
        with pytest.raises(ValueError, match="room for 2 tokens after its prompts, not for 3"):
            engine.model.llm.extend(torch.randn(1, 3, 64), cache)


def test_steps_fall_in_equal_strides_from_the_first_iteration_to_the_last() -> None:
    plan = reveals(64, SamplerOptions(5, 3.0, "constant", 1.0, 20, 10))
    assert [one.steps for one in plan] == [20, 18, 15, 12, 10]


def test_unconditional_rows_of_an_earlier_iteration_stand_for_later_ones(engine: Engine) -> None:
    items = [GenerateItem("a red circle", 1), GenerateItem("two blue squares", 2)]
    settings = SamplingSettings(image_size=64, num_iterations=6, diffusion_steps=6)
    extended: list[int] = []
    counted = engine.model.llm.extend

    def extend(embeddings: torch.Tensor, cache: PromptCache) -> torch.Tensor:
        extended.append(cache.rows)
        return counted(embeddings, cache)

    engine.model.llm.extend = extend  # type: ignore[method-assign]
    try:
        sparse = replace(settings, guidance_every=3)
        together = engine.generate(items, sparse)
        assert extended == [2, 2, 2, 2, 2, 2, 2, 2]  # the conditional rows six times, the others twice
        alone = np.concatenate([engine.generate([item], sparse) for item in items])
    finally:
        del engine.model.llm.extend
    assert np.abs(together.astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(together, engine.generate(items, settings))
