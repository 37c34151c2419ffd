"""Presets and annealed steps: what a job may say, and what is recorded of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from unipic.model.bench_card import PRESETS as MEASURED
from unipic.pipeline.params import PRESETS, AnnealedSteps, ImageParams


def test_parameters_that_are_left_out_leave_no_trace_in_fingerprint_and_lineage() -> None:
    names = ImageParams().model_dump(mode="json").keys()
    assert not names & {"guidance_every", "preset"}
    assert ImageParams(preset="exact").model_dump() == ImageParams().model_dump()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_is_recorded_as_the_parameters_it_sets(preset: str) -> None:
    made = ImageParams.model_validate({"preset": preset})
    recorded = made.model_dump(mode="json")
    assert {name: recorded[name] for name in PRESETS[preset]} == PRESETS[preset]
    assert "preset" not in recorded
    assert ImageParams.model_validate(recorded).model_dump() == made.model_dump()


def test_what_a_job_says_itself_goes_before_its_preset() -> None:
    made = ImageParams.model_validate({"preset": "fast", "diffusion_steps": 25})
    assert (made.diffusion_steps, made.guidance_every) == (25, PRESETS["fast"]["guidance_every"])


@pytest.mark.parametrize(
    ("steps", "said"),
    [(0, "greater than or equal to 1"), ({"from": 50}, "Field required"), ({"from": 50, "to": 1001}, "less than")],
)
def test_steps_outside_the_schedule_are_refused(steps: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as raised:
        ImageParams.model_validate({"diffusion_steps": steps})
    assert raised.value.error_count() == 1


def test_the_presets_that_a_card_is_measured_with_are_the_jobs_own() -> None:
    for name, settings in MEASURED.items():
        made = ImageParams.model_validate({"preset": name})
        steps = made.diffusion_steps
        assert isinstance(steps, AnnealedSteps)
        assert (settings["diffusion_steps"], settings["last_diffusion_steps"]) == (steps.first, steps.last)
        assert settings["guidance_every"] == made.guidance_every
        assert settings.get("num_iterations", 32) == made.num_iterations
