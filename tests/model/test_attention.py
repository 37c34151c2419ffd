"""Every way of attention gives what the reference gives."""

from __future__ import annotations

import pytest
import torch

from unipic.model.attention import Grouped, Way
from unipic.model.engine import Engine


@pytest.mark.parametrize("lengths", [[5, 5], [5, 2, 5, 3]], ids=["even", "ragged"])
def test_rows_read_after_their_prompts_get_the_same_without_any_mask(engine: Engine, lengths: list[int]) -> None:
    llm = engine.model.llm
    torch.manual_seed(0)
    prompts, new = torch.randn(len(lengths), 5, 64), torch.randn(len(lengths), 7, 64)
    found: dict[Way, torch.Tensor] = {}
    with torch.inference_mode():
        for way in ("masked", "grouped"):
            cache, last = llm.read_prompts(prompts, torch.tensor(lengths), room=9, way=way)
            found[way] = torch.cat([last[:, None], llm.extend(new, cache)], dim=1)
    torch.testing.assert_close(found["grouped"], found["masked"], atol=2e-5, rtol=1e-5)


def test_the_last_query_reads_every_key_and_each_earlier_one_a_key_less() -> None:
    values = torch.arange(6.0).view(1, 6, 1, 1)
    out = Grouped([6], device=torch.device("cpu"))(torch.zeros(1, 3, 1, 1), torch.zeros(1, 6, 1, 1), values)
    assert out.flatten().tolist() == pytest.approx([1.5, 2.0, 2.5])


def test_a_part_of_a_cache_reads_as_its_rows_do_in_the_whole(engine: Engine) -> None:
    llm = engine.model.llm
    torch.manual_seed(0)
    with torch.inference_mode():
        cache, _ = llm.read_prompts(torch.randn(3, 5, 64), torch.tensor([5, 4, 2]), room=4)
        new = torch.randn(3, 4, 64)
        whole = llm.extend(new, cache)
        torch.testing.assert_close(llm.extend(new[1:], cache.part(slice(1, None))), whole[1:], atol=2e-5, rtol=1e-5)
