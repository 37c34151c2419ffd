"""The output that a row was copied from, looked for in the folders beside some that are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from unipic.pipeline.errors import UniPicError
from unipic.pipeline.lineage import from_row
from unipic.pipeline.output.layout import unit_of
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import file_key
from unipic.pipeline.storage.paths import is_remote, join, local_path
from unipic.pipeline.storage.storage import Storage

MOST_FOLDERS = 100  # looked at beside one folder


@dataclass(frozen=True)
class Beside:
    """A data row: its output, the part that holds it and its place there."""

    output: str
    part: str
    at: int


def find_beside(
    near: Iterable[str], lineage: Mapping[str, Any], storage: Storage, *, give_up: Callable[[], bool] = lambda: False
) -> Beside | None:
    """The row with this lineage (digests as hex text) in an output beside one of the folders `near`.

    Args:
        give_up: asked before each folder is looked at.
    """
    parents = dict.fromkeys(_parent(folder.rstrip("/")) for folder in near)
    for parent in parents:
        for folder in islice(_folders(parent, storage), MOST_FOLDERS):
            if give_up():
                return None
            with suppress(UniPicError):  # a folder that is no output, or a damaged one
                if (found := _row(folder, lineage, storage)) is not None:
                    return found
    return None


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0] if is_remote(folder) else os.path.dirname(local_path(folder)) or "."


def _folders(parent: str, storage: Storage) -> Iterator[str]:
    """The folders directly in `parent`; on S3 one request finds each."""
    if not is_remote(parent):
        with suppress(OSError), os.scandir(parent) as found:
            yield from sorted(one.path for one in found if one.is_dir())
        return
    if not parent.startswith("s3://"):  # where no output can be
        return
    inside = join(parent, "")
    after = ""
    while (first := next(storage.list(parent, recursive=True, start_after=after), None)) is not None:
        name, below, _ = first.uri.removeprefix(inside).partition("/")
        after = f"{inside}{name}/\U0010ffff" if below else first.uri
        if below:
            yield f"{inside}{name}"


def _row(output: str, lineage: Mapping[str, Any], storage: Storage) -> Beside | None:
    ledger = Ledger(output, storage)
    run = ledger.run()
    if run is None or (run.task, run.fields.get("checkpoint")) != (lineage["task"], lineage.get("checkpoint")):
        return None
    unit = unit_of(file_key(lineage["source_file"]), lineage["source_row"], run.rows_per_unit)
    revision = ledger.snapshot(run).revision(unit)
    if revision is None:
        return None
    for part, table in ledger.data(ledger.receipt(unit, revision), ["lineage"]):
        for at, one in enumerate(table.column("lineage").to_pylist()):
            if from_row(one)["lineage_id"] == lineage["lineage_id"]:
                where = ledger.packed(run).locate(unit, part)
                return Beside(output, ledger.uri(where.path), where.first + at)
    return None
