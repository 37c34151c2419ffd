"""What the presets cost in quality on the shapes world: each one's scores beside its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from unipic.jobs.shapes.report import Table
from unipic.jobs.shapes.score_tables import tables
from unipic.pipeline.params import PRESETS, ImageParams

if TYPE_CHECKING:
    from unipic.jobs.shapes.evaluation import Evaluation
    from unipic.jobs.shapes.questions import Settings


def with_preset(settings: Settings, name: str) -> Settings:
    """`settings` with what a preset sets; an image of few tokens takes the same share of its iterations."""
    image = {**settings.image, **PRESETS[name]}
    if "num_iterations" in PRESETS[name]:
        share = PRESETS[name]["num_iterations"] / ImageParams().num_iterations
        image["num_iterations"] = max(1, round(settings.image["num_iterations"] * share))
    return replace(settings, image=image)


def preset_tables(evaluations: Mapping[str, Evaluation]) -> list[Table]:
    """Speed by preset, then the tables of scores with two rows for each preset, seen and held out."""
    tasks = [pace.task for pace in next(iter(evaluations.values())).paces]
    speeds = Table(
        "Rows per second of one replica",
        ("", *(task.capitalize() for task in tasks)),
        tuple(
            (name, *(f"{pace.replica_rows_per_s:.2f}" for pace in found.paces)) for name, found in evaluations.items()
        ),
    )
    scores = {
        f"{name}, {kind}": found.scores[kind] for name, found in evaluations.items() for kind in ("seen", "held out")
    }
    return [speeds, *tables(scores)]
