"""The checkpoint that ships does what it was trained for, and a sampler that is broken in one place does not.

A fixed sample, so that its scores move only when the model, its sampling or its checkpoint do.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unipic.model.checkpoint import verify
from unipic.model.engine import Engine
from unipic.model.head import DiffusionHead
from unipic.model.mar import Mar, Positions
from unipic.model.tiny.shipped import shipped_checkpoint
from unipic.model.tiny.training.evaluate import ask
from unipic.model.tiny.world.questions import Question, questions
from unipic.model.tiny.world.score import Scores, judge, scores

# What the shipped checkpoint passes with room to spare, and no broken sampler comes near.
OVERALL_LEAST, CAPTIONS_LEAST, EDITS_LEAST = 0.85, 0.85, 0.85
OVERALL_BROKEN, EDITS_BROKEN = 0.2, 0.2


@pytest.fixture(scope="module")
def engine() -> Engine:
    folder = shipped_checkpoint()
    if folder is None:
        pytest.skip("the trained checkpoint is not in this checkout")
    return Engine.load(folder)


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    """44 prompts, 16 pictures to describe, 24 to edit; half of all but single shapes are held out."""
    return questions(prompts=44, captions=16, edits=24, seed=11)


def _score(engine: Engine, asked: list[Question]) -> Scores:
    answers = ask(engine, asked)
    return scores(judge(one.case, answer) for one, answer in zip(asked, answers, strict=True))


@pytest.mark.slow
def test_the_shipped_checkpoint_draws_describes_and_edits(engine: Engine, asked: list[Question]) -> None:
    found = _score(engine, asked)
    assert found.overall >= OVERALL_LEAST
    assert found.captions.value >= CAPTIONS_LEAST
    assert found.edits_in_all.value >= EDITS_LEAST


def test_the_shipped_checkpoint_is_small_whole_and_has_its_card(engine: Engine) -> None:
    folder = shipped_checkpoint()
    assert folder is not None
    verify(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 12e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"## {title}" in card for title in ("Data", "Recipe", "Scores", "Licence"))
    assert engine.checkpoint_digest in card


def _swap_guidance(patch: pytest.MonkeyPatch) -> None:
    """The unconditional rows stand where the conditional ones belong, and the other way round."""
    right = DiffusionHead.estimate_guided

    def swapped(self: DiffusionHead, x: Tensor, y: Tensor, *, guidance: float) -> tuple[Tensor, Tensor]:
        conditional, unconditional = y.chunk(2)
        return right(self, x, torch.cat([unconditional, conditional]), guidance=guidance)

    patch.setattr(DiffusionHead, "estimate_guided", swapped)


def _reverse_places(patch: pytest.MonkeyPatch) -> None:
    """What is made for the first place is put at the last one, and so on."""
    right = Mar.decode

    def reversed_(
        self: Mar, x: Tensor, positions: Positions, *, visible: Tensor, wanted: Tensor, blank: Tensor | None = None
    ) -> Tensor:
        last = positions.diffusion.shape[1] - 1
        return right(self, x, positions, visible=visible, wanted=last - wanted, blank=blank)

    patch.setattr(Mar, "decode", reversed_)


def _shift_positions(patch: pytest.MonkeyPatch) -> None:
    """Every token is told that it stands one place further on."""
    right = Mar.positions

    def shifted(self: Mar, grid: int) -> Positions:
        whole, buffers = right(self, grid), self.config.buffer_tokens

        def shift(learned: Tensor, front: int) -> Tensor:
            return torch.cat([learned[:, :front], learned[:, front:].roll(1, dims=1)], dim=1)

        return Positions(shift(whole.encoder, buffers), shift(whole.decoder, buffers), shift(whole.diffusion, 0))

    patch.setattr(Mar, "positions", shifted)


@pytest.mark.slow
@pytest.mark.parametrize("break_it", [_swap_guidance, _reverse_places, _shift_positions])
def test_a_broken_sampler_fails_the_same_sample(
    engine: Engine,
    asked: list[Question],
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
) -> None:
    break_it(monkeypatch)
    found = _score(engine, [one for one in asked if one.task != "caption"])
    assert found.overall < OVERALL_BROKEN < OVERALL_LEAST
    assert found.edits_in_all.value < EDITS_BROKEN < EDITS_LEAST
