"""Manifests: which rows there are, cut into units, and reading one unit's rows.

Planning reads Parquet footers, never rows. JSON, JSONL and CSV are read whole (`text_manifests.py`); a folder of
pictures becomes a Parquet listing (`picture_folder.py`) that the caller stores with the output.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from unipic.pipeline.errors import EmptyManifest, ManifestError, ObjectMissing, StorageError, UniPicError, redact_url
from unipic.pipeline.job import EditParams, Input, Job
from unipic.pipeline.manifests import image_folder as picture_folder
from unipic.pipeline.manifests import parquet as parquet_rows
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.search import find, format_of, no_manifest, suitable
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.storage.paths import relative
from unipic.pipeline.storage.storage import FileInfo, Storage

FOOTER_THREADS = 16
SHORT_TEXT = 200
_WANTED = {"prompt": "text", "image": "paths, bytes or {bytes, path}"}
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
_NOT = {
    "prompt": (pa.types.is_binary, pa.types.is_fixed_size_binary, pa.types.is_nested),
    "image": (pa.types.is_list, pa.types.is_large_list),
}
OnProgress = Callable[[int, int], None]
"""Called with (files looked at, files in all)."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a job.

    Attributes:
        files: in order of name.
        schema: of the first file, text and bytes in their plain types.
        listing: of a folder of pictures, the bytes of a new listing that the caller has to store; else None.
        others: (file name, schema) of the first file of each further schema.
        replaced: of a folder of pictures, by stored listing, those that are others now than when they were listed.
    """

    files: tuple[ManifestFile, ...]
    schema: pa.Schema
    listing: bytes | None = None
    others: tuple[tuple[str, pa.Schema], ...] = ()
    replaced: tuple[picture_folder.Replaced, ...] = ()

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that every file has."""
        return tuple(name for name in self.schema.names if all(name in other.names for _, other in self.others))


def discover(
    source: Input,
    storage: Storage,
    *,
    listings: Sequence[str] = (),
    outside: str = "",
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Find the manifest's files and count their rows.

    Args:
        listings: URIs of the listings stored by earlier runs over the same folder of pictures.
        outside: the job's own output folder: what it wrote there is none of its manifest.
    Raises:
        ManifestError: nothing there, no rows, or a file that cannot be read, by name.
    """
    try:
        base, found = find(source.manifest, storage, outside=outside)
        if source.format == "images" or (source.format == "auto" and not suitable(found, "auto")):
            return _pictures(source, storage, base=base, found=found, listings=listings)
        return _files(source, storage, base=base, found=suitable(found, source.format), on_progress=on_progress)
    except StorageError as error:
        if error.retryable:
            raise
        message = f"The manifest {source.manifest} cannot be read: {error.message}"
        raise ManifestError(message, remedy=error.remedy) from error


def units(manifest: Manifest, rows_per_unit: int) -> Iterator[Unit]:
    """The manifest's units in order, made as they are asked for."""
    for file in manifest.files:
        for first_row in range(0, file.rows, rows_per_unit):
            yield Unit(file=file, first_row=first_row, rows=min(rows_per_unit, file.rows - first_row))


def bindings(job: Job) -> dict[str, str]:
    """What the task needs: the manifest column that is read for it."""
    columns, roles = job.input.columns, {}
    if job.task == "generate":
        roles["prompt"] = columns.prompt or "prompt"
    else:
        roles["image"] = columns.image or "image"
        if columns.prompt is not None:
            roles["prompt"] = columns.prompt
        elif isinstance(job.params, EditParams) and job.params.instruction is None:
            roles["prompt"] = "prompt"
    if columns.id is not None:
        roles["id"] = columns.id
    if columns.seed is not None:
        roles["seed"] = columns.seed
    return roles


def column_faults(manifest: Manifest, job: Job) -> list[ManifestError]:
    """Every column the job reads or keeps that is missing, of another type in some file, or of a type no cell of which
    can be what it is read as."""
    needed = {column: f"as {role}" for role, column in bindings(job).items()}
    needed |= {column: "to keep" for column in job.input.keep if column not in needed}
    there = manifest.schema.names
    alone = manifest.files[0].format == "csv" and len(there) == 1 and there[0] not in needed
    if alone and text_manifests.looks_joined(there[0]):
        return [ManifestError(f'The manifest has but one column, "{there[0]}".', remedy=text_manifests.USE_COMMAS)]
    faults: list[ManifestError] = []
    for column, why in needed.items():
        if column in there:
            faults += _differing(manifest, column)
        else:
            faults.append(_missing(column, why, there))
    return faults + [one for role, column in bindings(job).items() for one in _misfits(manifest, job, role, column)]


def together(faults: Sequence[UniPicError], kind: type[UniPicError]) -> UniPicError:
    """One error for all of `faults`, which are not none: the only one itself, or a `kind` with a line for each."""
    lines = list(dict.fromkeys(str(fault) for fault in faults))
    return faults[0] if len(lines) == 1 else kind("\n".join([f"{len(lines)} faults", *lines]))


def read_unit(unit: Unit, columns: Sequence[str], storage: Storage) -> pa.Table:
    """The unit's rows and just these columns, in manifest order, text and bytes in their plain types."""
    if unit.file.format == "parquet":
        return parquet_rows.read(unit, columns, storage)
    table = text_manifests.load(unit.file, storage)
    parquet_rows.check_there(table.schema.names, columns, unit.file.uri)
    return table.select(list(columns)).slice(unit.first_row, unit.rows)


def head(manifest: Manifest, n: int, storage: Storage) -> list[dict[str, object]]:
    """The first `n` rows, long text shortened and bytes counted, for people."""
    rows: list[dict[str, object]] = []
    names = list(manifest.columns)
    for file in manifest.files:
        if len(rows) >= n:
            break
        if not file.uri:  # a listing that is not stored yet
            assert manifest.listing is not None
            table = picture_folder.read_listing(manifest.listing).slice(0, n - len(rows))
        else:
            unit = Unit(file=file, first_row=0, rows=min(file.rows, n - len(rows)))
            table = read_unit(unit, names, storage)
        rows.extend(
            {name: _short(_value(table.column(name)[at])) for name in table.schema.names} for at in range(len(table))
        )
    return rows


def _files(
    source: Input, storage: Storage, *, base: str, found: Sequence[FileInfo], on_progress: OnProgress | None
) -> Manifest:
    look = partial(_look, storage=storage, base=base, root=source.image_root, wanted=source.format)
    files: list[ManifestFile] = []
    schemas: dict[pa.Schema, str] = {}
    with ThreadPoolExecutor(min(FOOTER_THREADS, len(found))) as pool:
        try:
            for file, schema in pool.map(look, found):
                files.append(file)
                if file.rows or len(found) == 1:
                    schemas.setdefault(schema, file.name)
                if on_progress is not None:
                    on_progress(len(files), len(found))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not any(file.rows for file in files):
        what = "a file without rows" if len(files) == 1 else f"{len(files)} files without rows"
        raise EmptyManifest(f"The manifest {source.manifest} is empty: {what}.")
    schema, *others = schemas
    return Manifest(tuple(files), schema, others=tuple((schemas[other], other) for other in others))


def _look(
    info: FileInfo, *, storage: Storage, base: str, root: str | None, wanted: str
) -> tuple[ManifestFile, pa.Schema]:
    file_format = wanted if wanted != "auto" else format_of(info.uri) or ""
    file = ManifestFile(
        uri=info.uri,
        name=relative(info.uri, base),
        rows=0,
        source_bytes=info.size_bytes,
        version=info.version,
        format=file_format,
        root=root or info.uri.rpartition("/")[0] or "/",
    )
    try:
        if file_format == "parquet":
            rows, schema = parquet_rows.footer(info, storage)
        else:
            table = text_manifests.load(file, storage)
            rows, schema = table.num_rows, table.schema
    except ObjectMissing as error:
        raise ManifestError(f"{info.uri} was listed and is gone.") from error
    return ManifestFile(**{**file.__dict__, "rows": rows}), schema


def _pictures(
    source: Input, storage: Storage, *, base: str, found: Sequence[FileInfo], listings: Sequence[str]
) -> Manifest:
    pictures = {relative(info.uri, base): info for info in found if picture_folder.is_picture(info.uri)}
    earlier: list[ManifestFile] = []
    replaced: list[picture_folder.Replaced] = []
    known: set[str] = set()
    for uri in listings:
        data = storage.read(uri)
        table = picture_folder.read_listing(data)
        known.update(table.column("image").to_pylist())
        name = uri.rpartition("/")[2].removesuffix(".parquet")
        earlier.append(_listing_file(uri, name, table.num_rows, len(data), base))
        if (now := picture_folder.find_replaced(name, table, pictures)) is not None:
            replaced.append(now)
    if not pictures and not earlier:
        raise no_manifest(source.manifest, found)
    listing = picture_folder.make_listing([info for name, info in pictures.items() if name not in known], base)
    files = list(earlier)
    if listing is not None:
        rows = picture_folder.read_listing(listing).num_rows
        files.append(_listing_file("", picture_folder.listing_name(listing), rows, len(listing), base))
    return Manifest(tuple(files), picture_folder.SCHEMA, listing, replaced=tuple(replaced))


def _listing_file(uri: str, name: str, rows: int, size_bytes: int, root: str) -> ManifestFile:
    return ManifestFile(uri=uri, name=name, rows=rows, source_bytes=size_bytes, version="", root=root)


def _missing(column: str, why: str, there: Sequence[str]) -> ManifestError:
    near = difflib.get_close_matches(column, there, n=1, cutoff=0.5)
    message = f'The manifest has no column "{column}", which the job needs {why}; it has: {", ".join(there)}.'
    guess = f'Did you mean "{near[0]}"? ' if near else ""
    return ManifestError(message, remedy=f"{guess}Map it under input.columns.")


def _differing(manifest: Manifest, column: str) -> Iterator[ManifestError]:
    """For each further schema in which the column is missing or of another type."""
    expected = manifest.schema.field(column).type
    for name, schema in manifest.others:
        if column not in schema.names:
            yield ManifestError(f'{name} has no column "{column}", which other files of the manifest have.')
            continue
        found = schema.field(column).type
        if found != expected and not pa.types.is_null(found) and not pa.types.is_null(expected):
            yield ManifestError(
                f'Column "{column}" is {found} in {name}, but {expected} in other files of the manifest.',
                remedy="Write them with one schema, or run them as two jobs.",
            )


def _misfits(manifest: Manifest, job: Job, role: str, column: str) -> Iterator[ManifestError]:
    """For the first file in which no cell of the column can be what it is read as: every row would be rejected."""
    if role not in _WANTED:
        return  # an id may be anything, and a seed is a number or its digits
    first = next((file.name for file in manifest.files if file.rows), "")
    for name, schema in ((first, manifest.schema), *manifest.others):
        if column not in schema.names:
            continue
        found = schema.field(column).type
        wrong = any(is_one(found) for is_one in (*_NUMBERS, *_NOT[role]))
        if wrong and role == "prompt" and pa.types.is_floating(found) and _has_own_text(job):
            wrong = False  # nothing but missing texts becomes such a column in pandas, and the job's own stands in
        if wrong:
            yield ManifestError(
                f'Column "{column}" is {found} in {name}; the job reads it as {role}, which must be {_WANTED[role]}.',
                remedy=f"Map another column to {role} under input.columns, or write this one as {_WANTED[role]}.",
            )
            return


def _has_own_text(job: Job) -> bool:
    params = job.params
    own = params.instruction if isinstance(params, EditParams) else getattr(params, "question", None)
    return own is not None


def _value(cell: pa.Scalar) -> object:
    """The cell for people: what Python cannot hold is named, as text that is not UTF-8 or a day of the year 12000."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return f"<unreadable {cell.type}>"


def _short(value: object) -> object:
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, str):
        text = redact_url(value)
        return text if len(text) <= SHORT_TEXT else f"{text[:SHORT_TEXT]}… ({len(text):,} characters)"
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value[:5]] + ["…"] * (len(value) > 5)
    return value
