from __future__ import annotations

from pathlib import Path

from unipic.jobs.shapes.presets import with_preset
from unipic.jobs.shapes.questions import Settings
from unipic.jobs.spec.load import JOBS
from unipic.pipeline.params import PRESETS


def test_every_preset_makes_a_job_of_the_shapes_world(tmp_path: Path) -> None:
    image = {"num_iterations": 16, "diffusion_steps": 50, "guidance": 3.0, "guidance_schedule": "constant"}
    settings = Settings(
        checkpoint=tmp_path,
        dtype="float32",
        device="cpu",
        image=image,
        compute={"batch_size": 8, "rows_per_unit": 8},
        replicas=1,
    )
    assert with_preset(settings, "exact").image == image
    assert with_preset(settings, "fast").image["num_iterations"] == 8
    for name in PRESETS:
        values = with_preset(settings, name).job("generate", tmp_path, rows=1)
        assert JOBS["generate"].model_validate(values).params.guidance == 3.0
