"""Stage one: a unit's manifest rows, read, checked, decoded and fitted to the model's square. CPU and network only."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unipic.pipeline.context import RunContext
from unipic.pipeline.crashpoints import crash_point
from unipic.pipeline.errors import OutputError, RejectionKind, RowError, redact_url
from unipic.pipeline.images.decode import ImageLimits, decode
from unipic.pipeline.images.encode import facts_of
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.images.fit import fit, inner_size
from unipic.pipeline.images.http import HttpSource
from unipic.pipeline.images.own_store import OwnStore
from unipic.pipeline.job import CaptionParams, EditParams, ImageParams
from unipic.pipeline.lineage import SEED_BITS, derive_seed, identity, parent_id, sha256
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.openai_request import check as check_request
from unipic.pipeline.manifests.parquet_rows import Unreadable
from unipic.pipeline.manifests.reading import read_rows
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.redaction import cell_without_signatures, readable, without_signatures
from unipic.pipeline.stages.tables import KEEP, PREPARED
from unipic.pipeline.storage.paths import is_remote

FETCH_THREADS = 8  # images of one unit in flight at once: fetching waits on the network, Pillow frees the GIL
LONGEST_SEED = 100  # characters; Python refuses to make a number of very many digits
DEADLY = "2 processes died while they read or decoded this row alone"


@dataclass(frozen=True)
class _Image:
    """Attributes: inner_px: as in `PREPARED`."""

    pixels: bytes
    inner_px: list[int] | None
    source: str
    sha256: str
    parent: str | None


@dataclass(frozen=True)
class _Work:
    """A unit's rows, and what making them ready takes; images are below `root`, which their paths call `alias`."""

    unit: Unit
    context: RunContext
    roles: Mapping[str, str]
    rows: pa.Table
    unreadable: tuple[Unreadable, ...]
    root: str
    alias: str
    own: OwnStore
    deadly: frozenset[int]


def prepare(unit: Unit, context: RunContext, *, deadly: frozenset[int] = frozenset()) -> pa.Table:
    """Read `unit` and make every row of it ready for a replica, or reject it.

    Args:
        deadly: rows that killed the process that prepared them, and are rejected unseen.

    Returns:
        A table of `PREPARED`, one row per manifest row and sample in order, then the job's `keep` columns.

    Raises:
        StorageError: the manifest file or the store itself is out of reach (a missing image only rejects its row).
    """
    crash_point("prepare.start")
    job = context.job
    roles = bindings(job)
    wanted = [
        *dict.fromkeys([*roles.values(), *job.input.keep, *(["lineage"] if "lineage" in context.columns else [])])
    ]
    rows, unreadable = read_rows(unit, wanted, context.storage)
    only = set(unit.only)
    places = sorted({row - unit.first_row for row, _ in only}) if only else range(rows.num_rows)
    own = OwnStore([unit.file.uri, f"{job.output.uri}/data", job.input.image_root or ""], context.storage)
    root, alias = _whereabouts(unit, context) if "image" in roles else ("", "")
    work = _Work(unit, context, roles, rows, tuple(unreadable), root, alias, own, deadly)
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        records = pool.map(lambda at: _record(work, at), places)
        samples = [sample for record in records for sample in record]
    if only:
        samples = [sample for sample in samples if (sample["row"], sample["sample"]) in only]
    table = pa.Table.from_pylist(samples, schema=PREPARED)
    at = pa.array([sample["row"] - unit.first_row for sample in samples], pa.int64())
    for name in job.input.keep:
        table = table.append_column(f"{KEEP}{name}", without_signatures(rows.column(name).take(at)))
    crash_point("prepare.end")
    return table


def _record(work: _Work, at: int) -> list[dict[str, Any]]:
    """The samples of one manifest row."""
    unit, job = work.unit, work.context.job
    value, fault = _cells(work, at)
    row = unit.first_row + at
    name, shown = _id(value.get("id"))
    record: dict[str, Any] = {"row": row, "id": shown}
    own_seed: int | None = None
    try:
        if row in work.deadly:
            raise RowError(RejectionKind.WORKER_CRASHED, DEADLY)
        if fault is not None:
            raise fault
        if value.get("request") is not None:
            check_request(value["request"], job)
        record["prompt"] = _prompt(value, job.params)
        own_seed = _seed(value)
        if "image" in work.roles:
            image = _image(value["image"], work)
            record |= {"pixels": image.pixels, "source": image.source, "input_sha256": image.sha256}
            record["inner_px"] = image.inner_px
            record["parent"] = _parent(work.rows, at) or image.parent
    except RowError as error:
        record["fault"] = {"kind": error.kind, "message": str(error), "stage": "prepare", "attempts": 1}
    if not isinstance(job.params, ImageParams):
        return [{**record, "sample": 0, "seed": None}]
    seeds = _sample_seeds(own_seed, job.params, identity(name, unit.file.key, row))
    return [{**record, "sample": sample, "seed": seed} for sample, seed in enumerate(seeds)]


def _cells(work: _Work, at: int) -> tuple[dict[str, Any], RowError | None]:
    """The row's value for each role, and what is wrong where a cell has none: its column's type alone says little."""
    value: dict[str, Any] = {}
    fault = None
    optional = {"id", "seed"} if work.context.job.task == "generate" else {"id", "seed", "prompt"}
    for role, column in work.roles.items():
        cell = work.rows.column(column)[at]
        try:
            value[role] = cell.as_py()
        except UnicodeDecodeError as error:
            value[role] = readable(cell)
            fault = RowError(
                RejectionKind.WRONG_TYPE, f'The column "{column}" holds text that is not UTF-8: {error.reason}.'
            )
        except (ValueError, OverflowError) as error:  # such as a date beyond the year 9999
            fault = RowError(RejectionKind.WRONG_TYPE, f'The column "{column}" holds no readable {cell.type}: {error}.')
        if work.unit.file.format in ("csv", "tsv") and role in optional and not value[role].strip():
            value[role] = None  # CSV has no other word for it
    return value, _unreadable(work, work.unit.first_row + at) or fault


def _unreadable(work: _Work, row: int) -> RowError | None:
    """Why the manifest file cannot give this row; None where it can."""
    for lost in work.unreadable:
        if lost.first_row <= row < lost.first_row + lost.rows:
            last = lost.first_row + lost.rows - 1
            which = f"Row {last:,}" if lost.rows == 1 else f"Rows {lost.first_row:,} to {last:,}"
            return RowError(
                RejectionKind.UNREADABLE_ROW,
                f"{which} of {work.unit.file.uri} cannot be read: {lost.why}.",
                remedy="Write it anew, to a file of another name.",
            )
    return None


def _id(value: object) -> tuple[str | None, str | None]:
    """The row's id as its seed is derived from it, and as outputs may show it."""
    if value is None:
        return None, None
    text, shown = str(value), redact_url(str(cell_without_signatures(value)))
    return (text if text == shown else sha256(text.encode())), shown


def _prompt(value: Mapping[str, Any], params: ImageParams | CaptionParams) -> str:
    prompt = value.get("prompt")
    if prompt is None and isinstance(params, EditParams):
        prompt = params.instruction
    if prompt is None and isinstance(params, CaptionParams):
        prompt = params.question
    if prompt is None:
        raise RowError(RejectionKind.EMPTY_PROMPT, "the prompt is null")
    if not isinstance(prompt, str):
        raise RowError(RejectionKind.WRONG_TYPE, f"the prompt is {type(prompt).__name__}, not text")
    if not prompt.strip():
        raise RowError(RejectionKind.EMPTY_PROMPT, "the prompt is empty")
    return prompt


def _seed(value: Mapping[str, Any]) -> int | None:
    seed = value.get("seed")
    if seed is None:
        return None
    if isinstance(seed, str) and seed.strip().isdecimal() and len(seed) < LONGEST_SEED:
        seed = int(seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**SEED_BITS:
        said = f"the seed is {_short(seed)}, not a whole number from 0 to 2^{SEED_BITS} - 1"
        raise RowError(RejectionKind.WRONG_TYPE, said)
    return seed


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SEED else f"{text[:LONGEST_SEED]}…"


def _sample_seeds(own_seed: int | None, params: ImageParams, row_identity: str) -> list[int]:
    """A seed of the row's own is taken as it is for its first sample and derived from for the others."""
    if own_seed is None:
        return [derive_seed(params.seed, row_identity, sample) for sample in range(params.samples_per_row)]
    return [own_seed, *(derive_seed(own_seed, "", sample) for sample in range(1, params.samples_per_row))]


def _image(value: object, work: _Work) -> _Image:
    job = work.context.job
    source = job.input
    limits = ImageLimits(max_px=int(source.max_image_mpx * 1e6), max_bytes=int(source.max_image_mb * 1e6))
    fetched = fetch(
        value,
        root=work.root,
        alias=work.alias,
        storage=work.context.storage,
        limits=limits,
        allow_outside_root=source.allow_outside_root,
        http=HttpSource(deadline_s=source.http_deadline_s) if source.allow_http else None,
        own=work.own,
    )
    image = decode(fetched.data, limits)
    pad = isinstance(job.params, EditParams) and job.params.fit == "pad"
    pixels = fit(image, task=job.task, image_size=job.image_size, pad=pad).tobytes()
    inner_px = inner_size(image, job.image_size) if pad else None
    parent = parent_id(facts_of(fetched.data).get("lineage_id"))
    return _Image(pixels, inner_px, fetched.source, fetched.sha256, parent)


def _whereabouts(unit: Unit, context: RunContext) -> tuple[str, str]:
    """The folder that holds the unit's images, and what their paths call it ("": the same).

    A part of an output of ours names images in the `images` folder beside its own `data`, from where the run stood
    that wrote them: the output may have moved since, or its uri may be relative.
    """
    root = context.job.input.image_root or unit.file.root
    folder, _, last = root.rstrip("/").rpartition("/")
    if context.job.input.image_root is not None or last != "data" or is_remote(root):
        return root, ""
    try:
        run = Ledger(folder, context.storage).run()
    except OutputError:  # then it is a folder like any other
        run = None
    return (root, "") if run is None else (folder, str(run.job["output"]["uri"]))


def _parent(rows: pa.Table, at: int) -> str | None:
    """The lineage id of the row whose output this row's image is, where the manifest is itself an output of ours."""
    if "lineage" not in rows.column_names:
        return None
    lineage = rows.column("lineage").slice(at, 1)
    if not pa.types.is_struct(lineage.type) or lineage.type.get_field_index("lineage_id") < 0:
        return None
    found = pc.struct_field(lineage, "lineage_id")[0]
    kinds = (pa.types.is_string, pa.types.is_binary, pa.types.is_fixed_size_binary)
    return parent_id(readable(found)) if any(fits(found.type) for fits in kinds) else None
