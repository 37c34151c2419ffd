"""Budgets of what the published sizes cost, counted without a device: they notice what makes the model slower."""

from __future__ import annotations

import pytest
import torch

from unipic.model.cards import CARDS
from unipic.model.config import published, tiny
from unipic.model.cost import Cost, caption_cost, image_cost
from unipic.model.counting import HostSync, counting
from unipic.model.sampling import SamplerOptions

H200 = CARDS["h200"]
PUBLISHED = SamplerOptions(32, 3.0, "constant", 1.0, 100)
HEAD_CALLS = 32 * 100


@pytest.fixture(scope="module")
def image() -> Cost:
    return image_cost(published(), PUBLISHED, H200, image_size=1024)


def test_the_head_stays_within_its_launches_and_shapes(image: Cost) -> None:
    assert image.part("head step").launches <= 96 * HEAD_CALLS
    assert image.head_shapes <= 8


def test_extending_stays_within_its_launches_and_arithmetic(image: Cost) -> None:
    assert image.part("LLM extend").launches <= 20_000
    assert image.part("LLM extend").flops <= 272e12


def test_the_decoder_computes_its_last_block_for_wanted_tokens_alone(image: Cost) -> None:
    assert image.part("MAR decoder").flops <= 312e12


def test_no_tensor_grows_with_the_square_of_the_tokens() -> None:
    options = SamplerOptions(2, 3.0, "constant", 1.0, 2)
    small, large = (image_cost(tiny(), options, H200, image_size=size) for size in (512, 1024))
    for part in ("LLM extend", "MAR decoder", "head step"):
        assert large.part(part).largest_bytes <= 4.5 * small.part(part).largest_bytes, part


def test_an_edit_and_a_caption_are_counted_too() -> None:
    edit = image_cost(tiny(), SamplerOptions(4, 3.0, "constant", 1.0, 5), H200, image_size=64, task="edit")
    caption = caption_cost(tiny(), H200, image_size=64, batch=4, tokens=32)
    assert {"VAE encode", "prompt", "LLM extend", "head step", "VAE decode"} <= {one.part for one in edit.parts}
    assert {"VAE encode", "MAR encoder", "prompt", "caption token"} <= {one.part for one in caption.parts}
    assert (
        caption.part("caption token").launches
        == 8 * caption_cost(tiny(), H200, image_size=64, batch=4, tokens=4).part("caption token").launches
    )


def test_three_layers_cost_what_the_first_two_say() -> None:
    from dataclasses import replace

    options = SamplerOptions(2, 3.0, "constant", 1.0, 2)
    config = tiny()
    deep = replace(config, llm=replace(config.llm, depth=4))
    two, four = (image_cost(one, options, H200, image_size=64).part("LLM extend") for one in (config, deep))
    a_layer = (four.launches - two.launches) / 2 / 2  # of two iterations
    assert 12 <= a_layer <= 20


def test_a_number_read_back_from_the_device_is_a_fault() -> None:
    with counting(H200), pytest.raises(HostSync, match="read back"):
        torch.zeros(1).sum().item()


def test_kernels_arithmetic_and_traffic_of_a_product_are_counted() -> None:
    with counting(H200) as counter, counter.part("product"):
        a = torch.empty(64, 32, dtype=torch.bfloat16, device="meta")
        _ = (a @ a.T).view(-1)[:10]
    work = counter.parts["product"]
    assert (work.launches, work.flops, work.moved_bytes) == (1, 2 * 64 * 64 * 32, 2 * (64 * 32 * 2 + 64 * 64))
    assert work.largest == (64, 64)
