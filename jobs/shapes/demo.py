"""`make demo`: the whole product on a small model, as a user drives it (`python -m unipic.jobs.shapes.demo`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from unipic.jobs.shapes import demo_cases as demo_shapes
from unipic.jobs.terminal.words import count, duration
from unipic.model.tiny.shipped import shipped_checkpoint

FOLDER = Path("demo-output")
GENERATE, CAPTION, EDIT = (f"configs/demo-{task}.yaml" for task in ("generate", "caption", "edit"))


def main() -> None:
    """Makes everything under `demo-output/`, which is emptied first.

    Raises:
        SystemExit: with the code of the command that failed.
    """
    if not Path(GENERATE).is_file():
        sys.exit("error: run this in the folder of the checkout: it uses configs/demo-*.yaml")
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    trained = make_checkpoint(FOLDER / "checkpoint")
    prompts = demo_shapes.draw_prompts()
    demo_shapes.write_prompts(FOLDER / "prompts.parquet", prompts)
    print(f"{FOLDER / 'prompts.parquet'}: {count(len(prompts), 'prompt')}")
    call("run", GENERATE)
    call("run", CAPTION)
    edits = demo_shapes.choose_edits(prompts, FOLDER / "pictures")
    demo_shapes.write_edits(FOLDER / "edits.parquet", edits, FOLDER / "pictures")
    print(f"\n{FOLDER / 'edits.parquet'}: {count(len(edits), 'picture')}, each with an instruction of its own")
    call("run", EDIT)
    call("trace", str(FOLDER / "edits"), edits[0].id)
    print("\n" + "\n".join(demo_shapes.tell(prompts, edits, FOLDER, trained=trained)))
    print(f"\nThat took {duration(time.monotonic() - started)}. Open {FOLDER / 'report.html'} to see it all.")


def make_checkpoint(folder: Path) -> bool:
    """A copy of the small trained checkpoint where one ships, else a random one; returns which."""
    if shipped := shipped_checkpoint():
        shutil.copytree(shipped, folder)
        return True
    call("init-tiny", str(folder))
    return False


def call(*words: str) -> None:
    """Runs one `unipic` command, shown as one would type it."""
    print(f"\n$ unipic {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "unipic.jobs.cli", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
