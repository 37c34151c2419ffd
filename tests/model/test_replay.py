"""The head's step, captured once and replayed, and what is padded for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unipic.model import diffusion
from unipic.model.head import DiffusionHead
from unipic.model.head_sampler import HeadSampler, coefficients, folded
from unipic.model.replay import MAX_BUCKETS, HeadReplays, buckets
from unipic.model.sampling import SamplerOptions, reveals

WIDTH, CHANNELS = 16, 4


def head() -> DiffusionHead:
    torch.manual_seed(0)
    made = DiffusionHead(channels=CHANNELS, condition_width=8, width=WIDTH, depth=2).eval().requires_grad_(False)
    made.lay_out()
    return made


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@torch.inference_mode()
def test_replayed_and_padded_steps_give_what_a_plain_loop_gives(guidance: float) -> None:
    replays, network = HeadReplays(), head()
    times = 1 if guidance == 1.0 else 2
    samplers = {steps: HeadSampler(network, steps=steps, temperature=0.9) for steps in (12, 5)}
    replays.prepare(samplers[12], sizes=(8, 24), steps=12, guided=times == 2)
    for steps, tokens in ((12, 8), (5, 3), (12, 20), (5, 24), (12, 3)):
        z, noise = torch.randn(times * tokens, 8), torch.randn(steps, tokens, CHANNELS)
        plain = samplers[steps].sample(z, noise, guidance=guidance)
        found = replays.sample(samplers[steps], z, noise, guidance=guidance)
        torch.testing.assert_close(found, plain, atol=2e-4, rtol=1e-5)


@torch.inference_mode()
def test_coefficients_multiplied_out_give_the_same_step() -> None:
    sampler = HeadSampler(head(), steps=20, temperature=0.8)
    table = coefficients(diffusion.tables(20), temperature=0.8)
    z, noise = torch.randn(6, 8), torch.randn(20, 3, CHANNELS)
    condition, x, guidance = sampler.head.cond_embed(z), noise[0], torch.tensor(2.0)
    for call in range(20):
        row, added = table[call].unbind(0), noise[min(call + 1, 19)]
        last = call == 19
        plain = sampler.step(x, condition, sampler.times[call], row, None if last else added, guidance)
        estimate, v = sampler.head.estimate_guided(x, sampler.times[call] + condition, guidance=guidance)
        torch.testing.assert_close(folded(x, estimate, v, row, added), plain, atol=2e-4, rtol=1e-4)
        x = plain


@torch.inference_mode()
def test_one_product_for_all_modulations_gives_the_same_bits() -> None:
    network = head()
    joined = HeadSampler(network, steps=4, temperature=1.0)
    z, noise = torch.randn(6, 8), torch.randn(4, 3, CHANNELS)
    found = joined.sample(z, noise, guidance=2.0)
    network._modulation = None
    assert torch.equal(found, HeadSampler(network, steps=4, temperature=1.0).sample(z, noise, guidance=2.0))


@torch.inference_mode()
def test_a_step_compiles_whole_once_for_each_bucket() -> None:
    network = head()
    sampler = HeadSampler(network, steps=4, temperature=1.0)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    step = torch.compile(sampler.step, backend=backend, fullgraph=True, dynamic=False)
    row = sampler.table[0].unbind(0)
    for tokens in (8, 16, 8, 24, 16):
        x, condition = torch.randn(tokens, CHANNELS), torch.randn(2 * tokens, WIDTH)
        found = step(x, condition, sampler.times[0], row, x, torch.tensor(3.0))
        expected = sampler.step(x, condition, sampler.times[0], row, x, torch.tensor(3.0))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 3


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_every_count_fits_a_bucket_and_there_are_few(counts: list[int]) -> None:
    sizes = buckets(counts)
    assert len(sizes) <= MAX_BUCKETS
    assert max(counts) <= sizes[-1] < max(counts) + 8
    assert list(sizes) == sorted(set(sizes))


def test_a_large_image_is_padded_by_a_tenth_at_most() -> None:
    counts = [
        one.masked_before - one.masked_after for one in reveals(4096, SamplerOptions(32, 3.0, "constant", 1.0, 1))
    ]
    sizes = buckets(counts)
    padded = sum(next(size for size in sizes if size >= count) for count in counts)
    assert padded <= 1.1 * 4096
