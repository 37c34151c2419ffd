"""Which columns a job reads, and whether the manifest has them in a type that can be read so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import EditParams, Job
from unipic.pipeline.manifests import openai_batch
from unipic.pipeline.manifests.csv_rows import USE_COMMAS, looks_joined
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.openai_request import REQUEST, TASK_OF
from unipic.pipeline.near import near

_WANTED = {
    "prompt": "text",
    "image": "paths, bytes or {bytes, path}",
    "seed": "whole numbers from 0 to 2^63 - 1, or their digits as text",
    "id": "text or numbers",
}
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
_NOT_WHOLE = (pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
_NOT = {
    "prompt": (pa.types.is_integer, *_NOT_WHOLE, *_BYTES, pa.types.is_nested),
    "image": (pa.types.is_integer, *_NOT_WHOLE, pa.types.is_list, pa.types.is_large_list),
    "seed": (*_NOT_WHOLE, *_BYTES, pa.types.is_temporal, pa.types.is_nested),
    "id": _BYTES,
}


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
    if job.input.format == openai_batch.FORMAT:
        roles["request"] = REQUEST
    return roles


def column_faults(manifest: Manifest, job: Job) -> list[ManifestError]:
    """Every column the job reads or keeps that is missing, of another type in some file, or of a type no cell of which
    can be what it is read as."""
    if manifest.endpoint and TASK_OF[manifest.endpoint] != job.task:
        task = TASK_OF[manifest.endpoint]
        return [
            ManifestError(
                f"The manifest's requests are for {manifest.endpoint}, and this job's task is {job.task}.",
                remedy=f"Set task: {task}.",
            )
        ]
    needed = {column: f"as {role}" for role, column in bindings(job).items()}
    needed |= {column: "to keep" for column in job.input.keep if column not in needed}
    there = manifest.schema.names
    alone = manifest.files[0].format == "csv" and len(there) == 1 and there[0] not in needed
    if alone and looks_joined(there[0]):
        return [ManifestError(f'The manifest has but one column, "{there[0]}".', remedy=USE_COMMAS)]
    faults: list[ManifestError] = []
    for column, why in needed.items():
        if column in there:
            faults += _differing(manifest, column)
        else:
            faults.append(_missing(column, why, there))
    if faults and job.input.format == "auto" and openai_batch.is_batch(there):
        message = f"The manifest has the columns of an OpenAI batch file: {', '.join(openai_batch.LINE)}."
        return [ManifestError(message, remedy=f"Set input.format: {openai_batch.FORMAT}.")]
    return faults + [one for role, column in bindings(job).items() for one in _misfits(manifest, job, role, column)]


def _missing(column: str, why: str, there: Sequence[str]) -> ManifestError:
    close = near(column, there, cutoff=0.5)
    message = f'The manifest has no column "{column}", which the job needs {why}; it has: {", ".join(there)}.'
    guess = f'Did you mean "{close}"? ' if close else ""
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
    """For the first file in which no cell of the column can be what it is read as: every row would be rejected.

    Bytes are no id: rows are looked for by it, and named after it.
    """
    first = next((file.name for file in manifest.files if file.rows), "")
    for name, schema in ((first, manifest.schema), *manifest.others):
        if column not in schema.names:
            continue
        found = schema.field(column).type
        wrong = any(is_one(found) for is_one in _NOT.get(role, ()))
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
