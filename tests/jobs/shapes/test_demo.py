"""`make demo` on a machine where everything is installed, and what it asks for and judges, without running anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.shapes.test_report import Reader
from tests.places import ROOT
from unipic.jobs.shapes import demo_cases
from unipic.jobs.shapes.demo import make_checkpoint
from unipic.jobs.shapes.questions import png, rows_of
from unipic.model.tiny.shipped import shipped_checkpoint
from unipic.model.tiny.world.grammar import caption_text
from unipic.model.tiny.world.samplers import PromptCase
from unipic.model.tiny.world.scene import render
from unipic.pipeline.lineage import LINEAGE

TOLD = ("$ unipic run configs/demo-generate.yaml", "96 of 96 rows ok, 0 rejected", "captions judged", "Done in ")


@pytest.fixture(scope="module")
def prompts() -> dict[str, PromptCase]:
    return demo_cases.draw_prompts()


@pytest.fixture(scope="module")
def outputs(prompts: dict[str, PromptCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and captions as a perfect model would answer the demo's prompts."""
    folder = tmp_path_factory.mktemp("demo")
    pictures = [
        {"id": name, "image": {"bytes": png(render(case.scene)), "path": ""}, "lineage": _lineage(at)}
        for at, (name, case) in enumerate(prompts.items())
    ]
    captions = [
        {"id": name, "caption": caption_text(case.scene), "lineage": _lineage(at)}
        for at, (name, case) in enumerate(prompts.items())
    ]
    _write(folder / "pictures", pictures)
    _write(folder / "captions", captions)
    return folder


def _lineage(at: int) -> dict[str, Any]:
    return {field.name: at.to_bytes(16, "big") if field.name == "lineage_id" else None for field in LINEAGE}


def _write(output: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    (output / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), output / "data" / "part-0.parquet")


def test_the_prompts_are_sixteen_of_each_task_half_of_them_held_out(prompts: dict[str, PromptCase]) -> None:
    tasks = Counter(case.phrase.task for case in prompts.values())
    held_out = Counter(case.phrase.task for case in prompts.values() if case.held_out)
    assert set(tasks.values()) == {16} and len(tasks) == 6
    assert set(held_out.values()) == {8} and set(tasks) - set(held_out) == {"single"}


def test_a_perfect_model_scores_full_marks_and_edits_are_of_every_kind(
    prompts: dict[str, PromptCase], outputs: Path
) -> None:
    edits = demo_cases.choose_edits(prompts, outputs / "pictures")
    assert {edit.case.edit.kind for edit in edits if edit.case} == {"recolour", "replace", "remove", "add"}
    demo_cases.write_edits(outputs / "edits.parquet", edits, outputs / "pictures")
    manifest = pq.read_table(outputs / "edits.parquet")
    assert manifest.schema.field("lineage").type == LINEAGE and manifest.num_rows == 24
    results = [
        {"id": edit.id, "image": {"bytes": png(render(edit.case.target)), "path": ""}, "lineage": _lineage(at)}
        for at, edit in enumerate(edits)
        if edit.case
    ]
    _write(outputs / "edits", results[1:])
    summary = demo_cases.judge_all(prompts, edits, outputs, trained=True)
    assert summary[0] == "96 images judged, 96 right (seen 56 of 56, held out 40 of 40)"
    assert summary[1].startswith("96 captions judged, 96 right")
    assert summary[2].startswith("24 edits judged, 23 right")
    read = Reader((outputs / "report.html").read_text())
    assert sum(tag == "article" for tag, _ in read.tags) == 96 + 24
    assert sum(tag == "img" for tag, _ in read.tags) == 96 + 24 + 23
    assert "there is no answer" in read.text and f"image {'0' * 16}" in read.text


def test_pictures_of_noise_are_edited_and_told_apart_from_wrong_ones(
    prompts: dict[str, PromptCase], tmp_path: Path
) -> None:
    import numpy as np

    noise = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    rows = [
        {"id": name, "image": {"bytes": noise, "path": ""}, "caption": "lovely", "lineage": _lineage(0)}
        for name in prompts
    ]
    for output in ("pictures", "captions"):
        _write(tmp_path / output, rows)
    edits = demo_cases.choose_edits(prompts, tmp_path / "pictures")
    assert len(edits) == 24 and {edit.case for edit in edits} == {None}
    summary = demo_cases.judge_all(prompts, edits, tmp_path, trained=False)
    assert summary[1].startswith("0 captions judged") and "weights are random" in summary[-1]
    assert "not judged: the detector reads no scene" in (tmp_path / "report.html").read_text()


def test_the_demo_takes_the_checkpoint_that_ships(tmp_path: Path) -> None:
    shipped = shipped_checkpoint()
    if shipped is None:
        pytest.skip("the trained checkpoint is not in this checkout")
    assert make_checkpoint(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "digests.json").read_bytes() == (shipped / "digests.json").read_bytes()


@pytest.mark.slow
def test_the_demo_makes_pictures_captions_edits_and_a_page(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    done = subprocess.run(
        [sys.executable, "-m", "unipic.jobs.shapes.demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in TOLD:
        assert words in done.stdout
    for name, rows in (("pictures", 96), ("captions", 96), ("edits", 24)):
        assert len(rows_of(tmp_path / "demo-output" / name)) == rows
    read = Reader((tmp_path / "demo-output" / "report.html").read_text())
    assert sum(tag == "img" for tag, _ in read.tags) == 96 + 2 * 24
