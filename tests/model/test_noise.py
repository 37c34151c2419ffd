from __future__ import annotations

import pytest
import torch

from unipic.model.noise import SeededNoise, ahead

CPU = torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 3])
def test_noise_drawn_ahead_or_in_threads_has_the_same_bits(threads: int) -> None:
    def drawn(threads: int) -> list[torch.Tensor]:
        noise = SeededNoise([5, 6, 7], tokens=12, channels=4, steps=6, threads=threads)
        order = noise.orders()
        return list(ahead(noise, [order[:, 9:], order[:, 4:9], order[:, :4]], CPU))

    for found, expected in zip(drawn(threads), drawn(1), strict=True):
        assert torch.equal(found, expected)


def test_each_draw_has_the_steps_of_its_turn() -> None:
    noise = SeededNoise([5], tokens=4, channels=2, steps=[7, 3])
    order = noise.orders()
    assert [len(noise.draw(order[:, place : place + 2])) for place in (0, 2)] == [7, 3]
