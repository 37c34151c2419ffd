"""A unit's answers as two Parquet files: data rows and rejected rows. Their bytes depend on nothing volatile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import redact
from unipic.pipeline.images.encode import encode
from unipic.pipeline.job import ImageParams, Job
from unipic.pipeline.lineage import LINEAGE, lineage_id, row_params, sha256
from unipic.pipeline.manifests.reading import read_rows
from unipic.pipeline.output.layout import IMAGES, image_name
from unipic.pipeline.records import OUTPUT_VERSION, PICTURE, Unit
from unipic.pipeline.stages.redaction import without_signatures
from unipic.pipeline.storage.paths import join

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
            prompt=row["prompt"],
            params=params,
            seed=seed,
            input_sha256=row["input_sha256"],
            checkpoint=context.checkpoint_digest,
        )
        lineage = {
            "lineage_id": identity,
            "source_file": unit.file.uri,
            "source_row": row["row"],
            "row_digest": row["row_digest"],
            "input_sha256": row["input_sha256"],
            "parent_lineage_id": row["parent"],
            "task": job.task,
            "prompt": row["prompt"],
            "params": params,
            "seed": seed,
            "sample": row["sample"],
            "checkpoint": context.checkpoint_digest,
            "code_version": context.code_version,
            "output_version": OUTPUT_VERSION,
        }
        out = {name: row.get(name) for name in ("id", "sample", "source", "prompt")}
        out |= {"instruction": row["prompt"], "question": row["prompt"]}
        if isinstance(job.params, ImageParams):
            data = _encoded(row["answer"], job, job.params, lineage)
            out["image"], beside = _placed(unit, row, data, job)
            files |= beside
        else:
            data = row["answer"]
            out["caption"] = data.decode()
        out["lineage"] = {**lineage, "output_sha256": sha256(data)}
        rows.append(out)
    return rows, files


def _encoded(raw: bytes, job: Job, params: ImageParams, lineage: Mapping[str, Any]) -> bytes:
    pixels = np.frombuffer(raw, np.uint8).reshape(job.image_size, job.image_size, 3)
    names = ("lineage_id", "task", "prompt", "seed", "checkpoint")
    facts = {name: str(lineage[name]) for name in names}
    return encode(pixels, image_format=params.image_format, quality=params.quality, facts=facts)


def _placed(unit: Unit, row: Mapping[str, Any], data: bytes, job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The picture's struct, and its file where pictures stand beside the Parquet."""
    params = job.params
    assert isinstance(params, ImageParams)
    name = image_name(unit, row["row"], row["sample"], SUFFIX[params.image_format])
    if job.output.images == "inline":
        return {"bytes": data, "path": name}, {}
    path = f"{IMAGES}/{name}"
    return {"bytes": None, "path": join(job.output.uri, path)}, {path: data}


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
    """Kept column → its name in the data parts. It hides neither one of ours nor another kept one."""
    return _free_names(job.input.keep, [*data_schema(job).names, "rejection"])


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
    rejections = [
        {
            **row["fault"],
            "message": redact(row["fault"]["message"]),  # an engine's own words may hold anything
            "source_file": unit.file.uri,
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


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as one Parquet file; Image columns are declared the way 🤗 datasets reads them."""
    table = _storable(table)
    features = {name: {"_type": "Image"} for name in table.column_names if table.schema.field(name).type == PICTURE}
    metadata = (
        {"huggingface": json.dumps({"info": {"features": _features(table.schema, features)}})} if features else {}
    )
    sink = pa.BufferOutputStream()
    # Level 1: captions and lineage shrink well, encoded pictures pass through at memory speed.
    pq.write_table(
        table.replace_schema_metadata(metadata or None).combine_chunks(), sink, compression="zstd", compression_level=1
    )
    return bytes(sink.getvalue())


def _storable(table: pa.Table) -> pa.Table:
    """`table` with columns of a type that Parquet or 🤗 datasets has no word for as the nearest that has one."""
    for at, field in enumerate(table.schema):
        column = table.column(at)
        if _holds_nothing(field.type):
            texts = [None if one is None else json.dumps(one, default=str) for one in column.to_pylist()]
            table = table.set_column(at, field.name, pa.chunked_array([texts], pa.string()))
        elif (kind := _common_type(field.type)) != field.type:
            table = table.set_column(at, field.name, column.cast(kind))
    return table


def _holds_nothing(kind: pa.DataType) -> bool:
    """Whether there is a struct without fields in it, which Parquet cannot hold."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return pa.types.is_nested(kind) and any(_holds_nothing(kind.field(at).type) for at in range(kind.num_fields))


def _common_type(kind: pa.DataType) -> pa.DataType:
    """`kind` without the maps, dictionaries and small decimals in it, which 🤗 datasets does not know."""
    if pa.types.is_map(kind):
        entry = pa.struct([("key", _common_type(kind.key_type)), ("value", _common_type(kind.item_type))])
        return pa.list_(entry)
    if pa.types.is_dictionary(kind):
        return _common_type(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_common_type(field.type)) for field in kind])
    if pa.types.is_nested(kind):
        field = kind.field(0).with_type(_common_type(kind.value_type))
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(field, kind.list_size)
        return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)
    return kind


def _features(schema: pa.Schema, images: Mapping[str, Any]) -> dict[str, Any]:
    """Every column's feature in datasets' own terms; it takes all of them or none."""
    from_arrow = {
        "large_string": "string",
        "double": "float64",
        "float": "float32",
        "halffloat": "float16",
        "date32[day]": "date32",
        "date64[ms]": "date64",
    }

    def feature(kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {child.name: feature(child.type) for child in kind}
        if pa.types.is_fixed_size_list(kind):
            return {"_type": "List", "feature": feature(kind.value_type), "length": kind.list_size}
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return {"_type": "List", "feature": feature(kind.value_type)}
        return {"_type": "Value", "dtype": from_arrow.get(str(kind), str(kind))}

    return {f.name: images.get(f.name) or feature(f.type) for f in schema}
