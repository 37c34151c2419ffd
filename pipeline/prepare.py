"""Stage one: a unit's manifest rows, read, checked, decoded and fitted to the model's square. CPU and network only."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.context import RunContext
from pipeline.crashpoints import crash_point
from pipeline.errors import RowError, redact_url
from pipeline.http_source import HttpSource
from pipeline.images import PictureLimits, decode, facts_of, fetch
from pipeline.job import CaptionParams, EditParams, ImageParams
from pipeline.lineage import derive_seed, identity
from pipeline.manifest import bindings, read_unit
from pipeline.records import FAULT, Unit, digest
from pipeline.signatures import without_signatures

FETCH_THREADS = 8  # pictures of one unit in flight at once: fetching waits on the network, Pillow frees the GIL

PREPARED = pa.schema(
    [
        ("row", pa.int64()),  # in the manifest file
        ("sample", pa.int32()),
        ("id", pa.string()),
        ("prompt", pa.string()),  # or instruction, or question
        ("seed", pa.uint64()),
        ("pixels", pa.large_binary()),  # (S, S, 3) uint8, fitted to image_size; null for generate
        ("source", pa.string()),
        ("input_sha256", pa.string()),
        ("parent", pa.string()),
        ("row_digest", pa.string()),
        ("fault", FAULT),
    ]
)


@dataclass(frozen=True)
class _Picture:
    pixels: bytes
    source: str
    sha256: str
    parent: str | None


def prepare(unit: Unit, context: RunContext) -> pa.Table:
    """Read `unit` and make every row of it ready for a replica, or faulty.

    Returns:
        A table of `PREPARED`, one row per manifest row and sample in order, then the job's `keep` columns.

    Raises:
        StorageError: the manifest file or the store itself is out of reach (a missing picture is a row's fault).
    """
    crash_point("prepare.start")
    job = context.job
    roles = bindings(job)
    wanted = [
        *dict.fromkeys([*roles.values(), *job.input.keep, *(["lineage"] if "lineage" in context.columns else [])])
    ]
    rows = read_unit(unit, wanted, context.storage)
    places = sorted({row - unit.first_row for row, _ in unit.only}) if unit.only else range(rows.num_rows)
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        records = pool.map(lambda at: _record(unit, context, roles, rows, at), places)
        samples = [sample for record in records for sample in record]
    if unit.only:
        samples = [sample for sample in samples if (sample["row"], sample["sample"]) in unit.only]
    table = pa.Table.from_pylist(samples, schema=PREPARED)
    at = pa.array([sample["row"] - unit.first_row for sample in samples], pa.int64())
    for name in job.input.keep:
        table = table.append_column(f"keep.{name}", without_signatures(rows.column(name).take(at)))
    crash_point("prepare.end")
    return table


def _record(unit: Unit, context: RunContext, roles: Mapping[str, str], rows: pa.Table, at: int) -> list[dict[str, Any]]:
    """The samples of one manifest row."""
    job = context.job
    value = {role: rows.column(column)[at].as_py() for role, column in roles.items()}
    row = unit.first_row + at
    record: dict[str, Any] = {"row": row, "id": None if value.get("id") is None else redact_url(str(value["id"]))}
    own_seed: int | None = None
    try:
        record["prompt"] = _prompt(value, job.params)
        own_seed = _seed(value)
        if "image" in roles:
            picture = _picture(value["image"], unit, context)
            record |= {"pixels": picture.pixels, "source": picture.source, "input_sha256": picture.sha256}
            record["parent"] = _parent(rows, at) or picture.parent
    except RowError as fault:
        record["fault"] = {"kind": fault.kind, "message": fault.message, "stage": "prepare", "attempts": 1}
    record["row_digest"] = digest([record["id"], record.get("prompt"), own_seed, record.get("input_sha256")])
    if not isinstance(job.params, ImageParams):
        return [{**record, "sample": 0, "seed": None}]
    seeds = _sample_seeds(own_seed, job.params, identity(record["id"], unit.file.key, row))
    return [{**record, "sample": sample, "seed": seed} for sample, seed in enumerate(seeds)]


def _prompt(value: Mapping[str, Any], params: ImageParams | CaptionParams) -> str:
    prompt = value.get("prompt")
    if prompt is None and isinstance(params, EditParams):
        prompt = params.instruction
    if prompt is None and isinstance(params, CaptionParams):
        prompt = params.question
    if prompt is None:
        raise RowError("EmptyPrompt", "the prompt is null")
    if not isinstance(prompt, str):
        raise RowError("WrongType", f"the prompt is {type(prompt).__name__}, not text")
    if not prompt.strip():
        raise RowError("EmptyPrompt", "the prompt is empty")
    return prompt


def _seed(value: Mapping[str, Any]) -> int | None:
    seed = value.get("seed")
    if seed is None:
        return None
    if isinstance(seed, str) and seed.strip().isdecimal():
        seed = int(seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise RowError("WrongType", f"the seed is {seed!r}, not a whole number from 0 to 2^64 - 1")
    return seed


def _sample_seeds(own_seed: int | None, params: ImageParams, row_identity: str) -> list[int]:
    """A seed of the row's own is taken as it is for its first sample and derived from for the others."""
    if own_seed is None:
        return [derive_seed(params.seed, row_identity, sample) for sample in range(params.samples_per_row)]
    return [own_seed, *(derive_seed(own_seed, "", sample) for sample in range(1, params.samples_per_row))]


def _picture(value: object, unit: Unit, context: RunContext) -> _Picture:
    from pipeline.replica import fit

    source = context.job.input
    limits = PictureLimits(max_px=int(source.max_image_mpx * 1e6), max_bytes=int(source.max_image_mb * 1e6))
    fetched = fetch(
        value,
        root=source.image_root or unit.file.root,
        storage=context.storage,
        limits=limits,
        allow_outside_root=source.allow_outside_root,
        http=HttpSource(deadline_s=source.http_deadline_s) if source.allow_http else None,
    )
    pixels = fit(decode(fetched.data, limits), task=context.job.task, image_size=context.job.image_size)
    return _Picture(pixels.tobytes(), fetched.source, fetched.sha256, facts_of(fetched.data).get("lineage_id"))


def _parent(rows: pa.Table, at: int) -> str | None:
    """The lineage id of the row whose output this row's picture is, where the manifest is itself an output of ours."""
    if "lineage" not in rows.column_names:
        return None
    lineage = rows.column("lineage")[at].as_py()
    return lineage.get("lineage_id") if isinstance(lineage, dict) else None
