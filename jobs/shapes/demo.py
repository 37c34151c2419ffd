"""`make demo`: all three tasks on a small model, as a user runs them (`python -m unipic.jobs.shapes.demo`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from unipic.jobs.shapes import demo_cases
from unipic.jobs.spec.examples import example
from unipic.jobs.terminal.formatting import count, duration
from unipic.model.tiny.shipped import shipped_checkpoint

FOLDER = Path("demo-output")


def main() -> None:
    """Empties `demo-output/` and writes everything there.

    Raises:
        SystemExit: with the exit code of a failed command.
    """
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    trained = make_checkpoint(FOLDER / "checkpoint")
    prompts = demo_cases.draw_prompts()
    demo_cases.write_prompts(FOLDER / "prompts.parquet", prompts)
    print(f"{FOLDER / 'prompts.parquet'}: {count(len(prompts), 'prompt')}")
    call("run", job_file("generate"))
    call("run", job_file("caption"))
    edits = demo_cases.choose_edits(prompts, FOLDER / "pictures")
    demo_cases.write_edits(FOLDER / "edits.parquet", edits, FOLDER / "pictures")
    print(f"\n{FOLDER / 'edits.parquet'}: {count(len(edits), 'image')} with one instruction each")
    call("run", job_file("edit"))
    call("trace", str(FOLDER / "edits"), edits[0].id)
    print("\n" + "\n".join(demo_cases.judge_all(prompts, edits, FOLDER, trained=trained)))
    print(f"\nDone in {duration(time.monotonic() - started)}. Open {FOLDER / 'report.html'} to see the results.")


def job_file(task: str) -> str:
    """The demo's job file for this task: that of a checkout where this is one, else the installed one."""
    name = f"demo-{task}"
    here = Path("configs") / f"{name}.yaml"
    return str(here if here.is_file() else example(name))


def make_checkpoint(folder: Path) -> bool:
    """Copies the trained checkpoint that ships, or creates a random one; returns whether it is trained."""
    if shipped := shipped_checkpoint():
        shutil.copytree(shipped, folder)
        return True
    call("init-tiny", str(folder))
    return False


def call(*arguments: str) -> None:
    """Prints and runs one `unipic` command."""
    print(f"\n$ unipic {' '.join(arguments)}", flush=True)
    process = subprocess.run([sys.executable, "-m", "unipic.jobs.cli", *arguments], check=False)
    if process.returncode:
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
