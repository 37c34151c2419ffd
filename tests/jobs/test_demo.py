"""`make demo` on a machine where everything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOLD = ("$ unipic run configs/demo-generate.yaml", "24 of 24 rows ok, 0 rejected", "Some captions:", "That took ")


@pytest.mark.slow
def test_the_demo_makes_pictures_captions_and_edits(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in TOLD:
        assert words in done.stdout
    for name in ("pictures", "captions", "edits"):
        assert list((tmp_path / "demo-output" / name / "data").glob("*.parquet"))
    assert len(list((tmp_path / "demo-output" / "look").glob("*.png"))) == 12
