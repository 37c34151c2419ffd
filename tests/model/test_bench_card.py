from __future__ import annotations

import json
from pathlib import Path

import pytest

from unipic.model.bench_card import PRESETS, main
from unipic.model.engine import SamplingSettings

SMALL = ["--size", "tiny", "--device", "cpu", "--image-size", "32", "--iterations", "2"]
SMALL += ["--diffusion-steps", "2", "--max-new-tokens", "2"]


def test_a_card_is_measured_by_task_batch_part_and_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--json", str(tmp_path / "card.json")])
    report = json.loads((tmp_path / "card.json").read_text())
    assert report["parity of replayed and plain steps"]["holds"]
    assert report["left out"] == []
    for task, batches in {"generate": (1, 4, 16), "edit": (1, 4), "caption": (1, 32, 128)}.items():
        assert all(report[f"{task}, batch {batch}"]["per_s"] > 0 for batch in batches)
    assert {"LLM extend", "MAR decoder", "head step"} <= report["parts of one image"].keys()
    assert {f"generate, batch 1, {name}" for name in PRESETS} <= report.keys()
    assert "generate, batch 16" in capsys.readouterr().out


def test_what_the_time_does_not_suffice_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--minutes", "-1"])
    assert "left out" in capsys.readouterr().out


def test_presets_are_settings_that_the_model_takes() -> None:
    for preset in PRESETS.values():
        SamplingSettings(**preset)  # type: ignore[arg-type]
