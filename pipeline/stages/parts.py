"""A unit's answers as two Parquet files: data rows and rejected rows. Their bytes depend on nothing volatile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import redact
from unipic.pipeline.images.encode import encode
from unipic.pipeline.images.fit import unpadded
from unipic.pipeline.job import ImageParams, Job
from unipic.pipeline.lineage import LINEAGE, lineage_id, row_params, sha256, to_row
from unipic.pipeline.manifests.reading import read_rows
from unipic.pipeline.output.layout import IMAGES, image_name
from unipic.pipeline.output.part_file import parquet_bytes
from unipic.pipeline.records import OUTPUT_VERSION, PICTURE, Unit
from unipic.pipeline.stages.redaction import without_folders, without_signatures

SUFFIX = {"png": "png", "jpeg": "jpg", "webp": "webp"}

REJECTION = pa.struct(
    [
        ("kind", pa.string()),
        ("message", pa.string()),
        ("stage", pa.string()),
        ("attempts", pa.int32()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("sample", pa.int32()),
    ]
)


def data_schema(job: Job) -> pa.Schema:
    """Columns of the data rows of `job`, before its `keep` columns."""
    head = [("id", pa.string()), ("sample", pa.int32())]
    body = {
        "generate": [("prompt", pa.string()), ("image", PICTURE)],
        "edit": [("source", pa.string()), ("instruction", pa.string()), ("image", PICTURE)],
        "caption": [("source", pa.string()), ("question", pa.string()), ("caption", pa.string())],
    }[job.task]
    if job.task == "caption":
        head = head[:1]
    return pa.schema([*head, *body, ("lineage", LINEAGE)])


def data_rows(unit: Unit, answered: pa.Table, context: RunContext) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """The well rows of a unit as rows of `data_schema`, and the pictures to write beside them (path → bytes)."""
    job = context.job
    params = json.dumps(row_params(job), sort_keys=True)
    rows: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    well = answered.filter(pc.is_null(answered.column("fault")))
    ours = [name for name in well.column_names if not name.startswith("keep.")]  # kept cells need no Python value
    for row in well.select(ours).to_pylist():
        seed = row["seed"] if isinstance(job.params, ImageParams) else None
        identity = lineage_id(
            task=job.task,
            prompt_sent=row["prompt"],
            params=params,
            seed=seed,
            input_sha256=row["input_sha256"],
            checkpoint=context.checkpoint_digest,
        )
        lineage = {
            "lineage_id": identity,
            "source_file": unit.file.name,
            "source_row": row["row"],
            "input_sha256": row["input_sha256"],
            "parent_lineage_id": row["parent"],
            "task": job.task,
            "prompt_sent": row["prompt"],
            "params": params,
            "seed": seed,
            "sample_index": row["sample"],
            "checkpoint": context.checkpoint_digest,
            "code_version": context.code_version,
            "output_version": OUTPUT_VERSION,
        }
        out = {name: row.get(name) for name in ("id", "sample", "source", "prompt")}
        out |= {"instruction": row["prompt"], "question": row["prompt"]}
        if isinstance(job.params, ImageParams):
            data = _encoded(row["answer"], row["inner_px"], job, job.params, lineage)
            out["image"], beside = _placed(unit, row, data, job)
            files |= beside
        else:
            data = row["answer"]
            out["caption"] = data.decode()
        out["lineage"] = to_row({**lineage, "output_sha256": sha256(data)})
        rows.append(out)
    return rows, files


def _encoded(
    raw: bytes, inner_px: Sequence[int] | None, job: Job, params: ImageParams, lineage: Mapping[str, Any]
) -> bytes:
    pixels = np.frombuffer(raw, np.uint8).reshape(job.image_size, job.image_size, 3)
    if inner_px is not None:
        pixels = unpadded(pixels, inner_px)
    facts = {name: str(lineage[name]) for name in ("lineage_id", "task", "seed", "checkpoint")}
    facts["prompt"] = str(lineage["prompt_sent"])
    return encode(pixels, image_format=params.image_format, quality=params.quality, facts=facts)


def _placed(unit: Unit, row: Mapping[str, Any], data: bytes, job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The image's struct, and its file where images are beside the Parquet; its path starts from the output folder."""
    params = job.params
    assert isinstance(params, ImageParams)
    name = image_name(unit, row["row"], row["sample"], SUFFIX[params.image_format])
    if job.output.images == "inline":
        return {"bytes": data, "path": name}, {}
    path = f"{IMAGES}/{name}"
    return {"bytes": None, "path": path}, {path: data}


def data_part(unit: Unit, rows: Sequence[Mapping[str, Any]], answered: pa.Table, context: RunContext) -> bytes | None:
    """The data part's bytes, or None where no row of the unit is well."""
    if not rows:
        return None
    table = pa.Table.from_pylist(list(rows), schema=data_schema(context.job))
    kept = answered.filter(pc.is_null(answered.column("fault")))
    for name, free in kept_names(context.job).items():
        table = table.append_column(free, kept.column(f"keep.{name}"))
    return parquet_bytes(table)


def kept_names(job: Job) -> dict[str, str]:
    """Kept column → its name in the data parts. It hides no other column and no field of lineage."""
    return _free_names(job.input.keep, [*data_schema(job).names, "rejection", *LINEAGE.names])


def renamed(job: Job) -> list[str]:
    """Notes on kept columns that are called otherwise in the output."""
    names = kept_names(job).items()
    return [
        f'the column "{name}" is kept as "{free}": outputs have one of that name'
        for name, free in names
        if name != free
    ]


def _free_names(keep: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    taken = {*ours, *keep}
    names: dict[str, str] = {}
    for name in keep:
        free = name
        while free in ours or (free != name and free in taken):
            free = f"source_{free}"
        names[name] = free
        taken.add(free)
    return names


def rejected_part(unit: Unit, answered: pa.Table, context: RunContext) -> bytes | None:
    """The rejected rows with the manifest's own columns, so that the part is a manifest again; None without any."""
    bad = answered.filter(pc.is_valid(answered.column("fault"))).select(["row", "sample", "fault"]).to_pylist()
    if not bad:
        return None
    # A second read: which rows a replica rejects is only known when it has answered. Carrying every column of every
    # row until then would put the manifest's widest cells into each block, for rows that are rare.
    source, _ = read_rows(unit, context.columns, context.storage)  # a cell that cannot be read is null
    source = _without_rejection(source)
    rows = source.take(pa.array([row["row"] - unit.first_row for row in bad], pa.int64()))
    table = pa.table([without_signatures(column) for column in rows.columns], schema=rows.schema)
    job, file = context.job, unit.file
    folders = (file.uri.removesuffix(file.name), file.root, job.input.image_root, job.output.uri, job.model.checkpoint)
    rejections = [
        {
            **row["fault"],
            "message": without_folders(redact(row["fault"]["message"]), folders),
            "source_file": unit.file.name,
            "source_row": row["row"],
            "sample": row["sample"],
        }
        for row in bad
    ]
    return parquet_bytes(table.append_column("rejection", pa.array(rejections, REJECTION)))


def _without_rejection(source: pa.Table) -> pa.Table:
    """`source` with room for our column: one of an earlier rejection of ours goes, a stranger's gets another name."""
    names = source.column_names
    if "rejection" not in names:
        return source
    if source.schema.field("rejection").type == REJECTION:
        return source.drop_columns(["rejection"])
    free = _free_names(["rejection"], [*names])["rejection"]
    return source.rename_columns([free if name == "rejection" else name for name in names])
