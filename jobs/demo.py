"""`make demo`: the whole product on a small model, as a user drives it. `python -m jobs.demo` from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from jobs.words import count, duration

FOLDER = Path("demo-output")
JOBS = ("configs/demo-generate.yaml", "configs/demo-caption.yaml", "configs/demo-edit.yaml")
COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
CAPTIONS_SHOWN = 4


def main() -> None:
    """Makes everything under `demo-output/`, which is emptied first.

    Raises:
        SystemExit: with the code of the command that failed.
    """
    if not Path(JOBS[0]).is_file():
        sys.exit("error: run this in the folder of the checkout: it uses configs/demo-*.yaml")
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    trained = make_checkpoint(FOLDER / "checkpoint")
    write_prompts(FOLDER / "prompts.parquet")
    for job in JOBS:
        call("run", job)
    call("trace", str(FOLDER / "edits"), "row-03")
    tell(trained=trained)
    print(f"\nThat took {duration(time.monotonic() - started)}.")


def make_checkpoint(folder: Path) -> bool:
    """A copy of the small trained checkpoint where one ships, else a random one; returns which."""
    shipped = Path(__file__).resolve().parent.parent / "model" / "tiny" / "checkpoint"
    if (shipped / "digests.json").is_file():
        shutil.copytree(shipped, folder)
        return True
    call("init-tiny", str(folder))
    return False


def write_prompts(path: Path) -> None:
    """A Parquet manifest of 24 prompts, each with a key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    keys = [f"row-{number:02d}" for number in range(len(prompts))]
    pq.write_table(pa.table({"key": keys, "prompt": prompts}), path)
    print(f"{path}: {count(len(prompts), 'prompt')}")


def call(*words: str) -> None:
    """Runs one `unipic` command, shown as one would type it."""
    print(f"\n$ unipic {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "jobs.cli", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def tell(*, trained: bool) -> None:
    """Says what was made, where, and a few captions; writes the first pictures as files to look at."""
    import pyarrow.parquet as pq

    looks = FOLDER / "look"
    looks.mkdir()
    for name in ("pictures", "edits"):
        for row in pq.read_table(FOLDER / name / "data", columns=["id", "image"]).slice(0, 6).to_pylist():
            (looks / f"{row['id']}-{name}.png").write_bytes(row["image"]["bytes"])
    captions = pq.read_table(FOLDER / "captions" / "data", columns=["id", "caption"])
    print("\nWhat there is now:")
    for name, what in (("pictures", "from the prompts"), ("captions", "of the pictures"), ("edits", "of the pictures")):
        rows = pq.read_table(FOLDER / name / "data", columns=["id"]).num_rows
        print(f"  {FOLDER / name / 'data'}/*.parquet   {count(rows, 'row')} {what}")
    print(f"  {looks}/*.png   a few of them to look at")
    print("\nSome captions:")
    for row in captions.slice(0, CAPTIONS_SHOWN).to_pylist():
        print(f"  {row['id']}: {row['caption']!r}")
    if not trained:
        print("\nThe weights are random, so pictures and captions are noise; the way they took is the real one.")


if __name__ == "__main__":
    main()
