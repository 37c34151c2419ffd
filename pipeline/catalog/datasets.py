"""The data sets that a job reads and writes, each under one OpenLineage name, whoever reads or writes it.

The names follow OpenLineage's rules: `file` and an absolute path, or such as `s3://<bucket>` and a key. The data rows
of an output are one data set, its `data` folder. A manifest that is that folder, a part of it, or rows copied out of it
names the same one, so that a catalogue draws one node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import UniPicError, redact
from unipic.pipeline.job import Job
from unipic.pipeline.lineage import from_row
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import read_rows
from unipic.pipeline.output.layout import DATA, PUBLISHED
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.neighbours import find_beside
from unipic.pipeline.storage.paths import is_remote, join, local_path, split_scheme
from unipic.pipeline.storage.storage import Storage

SEARCH_S = 2.0  # for the output that a manifest's rows were copied from
COPIED = {"lineage_id", "source_file", "source_row", "task"}


@dataclass(frozen=True)
class DataSet:
    """A folder or a file under its OpenLineage name; `uri` is where it is."""

    namespace: str
    name: str
    uri: str

    @classmethod
    def at(cls, uri: str) -> DataSet:
        if is_remote(uri):
            scheme, path = split_scheme(redact(uri))
            bucket, _, key = path.partition("/")
            return cls(f"{scheme}://{bucket}", key.strip("/") or "/", redact(uri))
        path = os.path.abspath(local_path(uri))
        return cls("file", path, f"file://{path}")


def manifest_data_set(job: Job, manifest: Manifest, storage: Storage) -> DataSet:
    """The manifest: a file that is named as such, else the folder of its files; of an output of ours, its data rows."""
    (first, *others) = manifest.files
    named = DataSet.at(job.input.manifest)
    single = not others and bool(first.uri) and DataSet.at(first.uri) == named
    return DataSet.at(_owner(first.uri if single else manifest.folder, storage))


def further_inputs(job: Job, manifest: Manifest, storage: Storage) -> Iterator[DataSet]:
    """What a job reads beside its manifest: a folder of images, and the output that the manifest's rows come from."""
    if job.input.image_root is not None and "image" in bindings(job):
        yield DataSet.at(_owner(job.input.image_root, storage))
    if "lineage" in manifest.columns and (output := _copied_from(job, manifest, storage)):
        yield DataSet.at(join(output, DATA))


def _owner(uri: str, storage: Storage) -> str:
    """The data rows of the output of ours that `uri` is inside or is; else `uri`."""
    folder = uri.rstrip("/")
    above, _, last = folder.rpartition("/")
    candidates = [folder, above if last in PUBLISHED else "", _above_part(above)]
    for output in filter(None, candidates):
        try:
            if Ledger(output, storage).identity() is not None:
                return join(output, DATA)
        except UniPicError:  # then it is a folder like any other
            continue
    return uri


def _above_part(folder: str) -> str:
    above, _, last = folder.rpartition("/")
    return above if last in PUBLISHED else ""


def _copied_from(job: Job, manifest: Manifest, storage: Storage) -> str:
    """The output beside the manifest or this job's that the first row's lineage is of; "" where none is found."""
    until = time.monotonic() + SEARCH_S
    unit = next(units(manifest, 1), None)
    if unit is None or unit.file.format != "parquet":
        return ""
    rows, _ = read_rows(unit, ["lineage"], storage)
    stated = rows.column("lineage")[0].as_py() if pa.types.is_struct(rows.column("lineage").type) else None
    if not isinstance(stated, dict) or not stated.keys() >= COPIED:
        return ""
    lineage: dict[str, Any] = from_row(stated)
    near = [unit.file.uri.rpartition("/")[0], job.output.uri]
    made = find_beside(near, lineage, storage, give_up=lambda: time.monotonic() > until)
    return made.output if made is not None else ""
