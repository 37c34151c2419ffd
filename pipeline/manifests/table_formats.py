"""Folders that are more than their files: tables whose rows a log decides, and columns that stand in folder names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

from unipic.pipeline.errors import AccessDenied, ManifestError
from unipic.pipeline.storage.paths import is_remote, join
from unipic.pipeline.storage.storage import Storage

LEVELS_UP = 3  # above the manifest's folder: a table's data is a level or two below what says that it is one
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class _Format:
    """A kind of table.

    Attributes:
        shown_by: whether paths below some folder show that one of these tables is there.
        sign: folder of the table that such paths lead through; "" where they do not.
    """

    name: str
    shown_by: Callable[[Collection[str]], bool]
    sign: str
    why: str
    remedy: str


_LOGGED = "its folder also holds files that are no longer part of it"
_FORMATS = (
    _Format(
        "a Delta table",
        lambda paths: any("/_delta_log/" in f"/{path}" for path in paths),
        "_delta_log",
        _LOGGED,
        'Write its rows to Parquet first: deltalake.DeltaTable("…").to_pyarrow_table(), then pyarrow.parquet.',
    ),
    _Format(
        "an Iceberg table",
        lambda paths: any("/metadata/" in f"/{path}" and path.endswith(".metadata.json") for path in paths),
        "metadata",
        _LOGGED,
        "Write its rows to Parquet first, with pyiceberg: table.scan().to_arrow(), then pyarrow.parquet.",
    ),
    _Format(
        "a Hudi table",
        lambda paths: any("/.hoodie/" in f"/{path}" for path in paths),
        ".hoodie",
        _LOGGED,
        "Write its rows to Parquet first, as a snapshot query gives them.",
    ),
    _Format(
        "a data set that datasets.save_to_disk wrote",
        lambda paths: any(_was_saved(path, paths) for path in paths),
        "",
        "its rows are in Arrow files, maybe behind a list of indices",
        'Write them to Parquet first: datasets.load_from_disk("…").to_parquet("rows.parquet").',
    ),
)


def refuse_tables(folder: str, paths: Collection[str], storage: Storage) -> None:
    """Raises ManifestError where `folder` is, holds or lies in a table whose files alone do not say what its rows are.

    Args:
        paths: of all files that were found in it, relative to it.
    """
    for kind in _FORMATS:
        if kind.shown_by(paths):
            raise _refused(kind, folder)
    above = folder.rstrip("/")
    for _ in range(1 + LEVELS_UP):
        if above.count("/") < (3 if is_remote(folder) else 1):
            return
        for kind in _FORMATS:
            if kind.sign and _has(join(above, kind.sign), kind, storage):
                raise _refused(kind, above)
        above = above.rpartition("/")[0]


def partitions(name: str) -> dict[str, str | None]:
    """The columns that stand in the folders of a file's path, as `date=2026-01-01/part-0.parquet` has one."""
    found: dict[str, str | None] = {}
    for part in name.split("/")[:-1]:
        column, equals, value = part.partition("=")
        if equals and column:
            found[unquote(column)] = None if value == _HIVE_NULL else unquote(value)
    return found


def with_partitions(schema: pa.Schema, name: str) -> pa.Schema:
    """`schema`, and the columns that stand in the file's path, as text. A column of the file itself comes first."""
    further = [pa.field(column, pa.string()) for column in partitions(name) if column not in schema.names]
    return pa.schema([*schema, *further])


def _has(folder: str, kind: _Format, storage: Storage) -> bool:
    try:
        return any(kind.shown_by([f"{kind.sign}/{info.uri.rpartition('/')[2]}"]) for info in storage.list(folder))
    except AccessDenied:  # who may read the manifest's folder alone is not to be refused it for that
        return False


def _was_saved(path: str, paths: Collection[str]) -> bool:
    folder, _, name = path.rpartition("/")
    beside = f"{folder}/dataset_info.json" if folder else "dataset_info.json"
    return name == "dataset_dict.json" or (name == "state.json" and beside in paths)


def _refused(kind: _Format, folder: str) -> ManifestError:
    return ManifestError(f"{folder} is {kind.name}: {kind.why}.", remedy=kind.remedy)
