"""The images of an output as files, with a list of them that 🤗 datasets reads (`imagefolder`).

A second export into the same folder goes on where the first ended: files that hold the right image are left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from unipic.pipeline.audit.image_names import Template, same_file
from unipic.pipeline.audit.images import image_bytes
from unipic.pipeline.audit.outcomes import Outcome, outcomes
from unipic.pipeline.audit.whole_file import whole_file
from unipic.pipeline.errors import JobError
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.stages.parts import SUFFIX
from unipic.pipeline.storage.storage import Storage

LIST = "metadata.jsonl"
NAME, NAME_WITHOUT_ID = "{id}-{sample}", "{file}-{row}-{sample}"
THREADS = 8  # images of one unit at once: most of the time goes to reading and writing files


@dataclass(frozen=True)
class ExportedImages:
    """What was written.

    Attributes:
        images: files there now; `earlier` of them from an export before this one.
        rejected: samples of the job that have no image.
        undone: samples that no run has come to yet.
    """

    images: int
    earlier: int
    rejected: int
    undone: int


def export_images(
    output_uri: str,
    folder: Path,
    storage: Storage,
    *,
    name: str | None = None,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> ExportedImages:
    """Write each image under `output_uri` to a file of its own in the local `folder`.

    Args:
        name: template of the files' names; default: `NAME`, or `NAME_WITHOUT_ID` where the job maps no id.
        force: replace files that hold something else.
        on_progress: called with the number of images that are there.

    Raises:
        JobError: an output of captions, a name that does not fit, two images of one name, or a file that is there
            already and holds something else.
        OutputError: no run has begun there, or a receipt or a part is damaged.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    if run.task == "caption":
        raise JobError(f"{output_uri} holds captions, not images.", remedy="--to FILE writes captions.")
    has_ids = "id" in run.fields["columns"]
    template = Template(name or (NAME if has_ids else NAME_WITHOUT_ID), SUFFIX[run.fields["params"]["image_format"]])
    _refuse_collisions(ledger, run, template)
    images = earlier = rejected = 0
    prompt = "prompt" if run.task == "generate" else "instruction"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder} cannot be made: {error.strerror}.") from error
    with whole_file(folder / LIST, force=True) as listing, ThreadPoolExecutor(THREADS) as pool:

        def place(named: tuple[str, dict[str, Any]]) -> bool:
            return _place(folder / named[0], named[1], ledger, force=force)

        for outcome in outcomes(ledger, run, ["sample", prompt, "image"]):
            named = [(template.name(_facts(outcome, row)), row) for row in outcome.samples]
            earlier += sum(pool.map(place, named))
            for file_name, row in named:
                entry = {"file_name": file_name, "id": row["id"], "prompt": row[prompt]}
                line = {**entry, "lineage_id": row["lineage"]["lineage_id"]}
                listing.write(json.dumps(line, ensure_ascii=False) + "\n")
            images, rejected = images + len(named), rejected + len(outcome.rejections)
            on_progress(images)
    total = sum(file.rows for file in run.files) * run.samples_per_row
    return ExportedImages(images, earlier, rejected, total - images - rejected)


def _refuse_collisions(ledger: Ledger, run: Run, template: Template) -> None:
    """Before anything is written: a digest of 12 bytes is held of each name."""
    seen: set[bytes] = set()
    for outcome in outcomes(ledger, run, ["sample"], rejected=False):
        for row in outcome.samples:
            name = template.name(_facts(outcome, row))
            key = same_file(name)
            if key in seen:
                where = f"row {outcome.row:,} of {outcome.file}, sample {row['sample']}"
                raise JobError(
                    f"Two images would be called {name}, the second that of {where}; case does not count.",
                    remedy="Add {file}, {row} or {sample} to --name.",
                )
            seen.add(key)


def _facts(outcome: Outcome, row: dict[str, Any]) -> dict[str, object]:
    lineage, stem = row["lineage"], str(PurePosixPath(outcome.file).with_suffix(""))
    return {
        "id": row["id"] if row["id"] is not None else f"{stem}-{outcome.row}",
        "sample": row["sample"],
        "row": outcome.row,
        "file": stem,
        "seed": lineage["seed"],
        "lineage": lineage["lineage_id"],
    }


def _place(path: Path, row: dict[str, Any], ledger: Ledger, *, force: bool) -> bool:
    """Write a row's image to `path`; True if it was there already."""
    try:
        if path.is_file() and not path.is_symlink() and _digest(path) == row["lineage"]["output_sha256"]:
            return True
        if os.path.lexists(path) and not force:
            raise JobError(f"{path} exists already and holds something else.", remedy="--force replaces it.")
        data = image_bytes(row["image"], ledger.output_uri, ledger.storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}.") from error
    return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
