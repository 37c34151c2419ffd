"""The command line as a user runs it, and the job files it is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.patience import HANGS_S

SIZE = {"image_size": 64}
FAST = {**SIZE, "num_iterations": 4, "diffusion_steps": 5}


def unipic(*arguments: str, expect: int = 0) -> str:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "unipic.jobs.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def write_job(folder: Path, task: str, *, checkpoint: Path, manifest: str, output: str, **sections: Any) -> str:
    job = {
        "name": f"trial-{task}",
        "task": task,
        "input": {"manifest": manifest, **sections.pop("input", {})},
        "model": {"checkpoint": str(checkpoint), "dtype": "float32", "device": "cpu"},
        "output": {"uri": output},
        **sections,
    }
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(job))
    return str(path)
