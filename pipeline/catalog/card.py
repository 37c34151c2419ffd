"""README.md of an output: a data-set card, so that `datasets.load_dataset` and the Hub open the folder as it is.

A run that ends writes it again; equal content is not written. What is between the marks is ours; the licence, further
metadata and text outside of them are the user's and stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from unipic.pipeline.errors import ObjectMissing, StorageError
from unipic.pipeline.job import Job
from unipic.pipeline.lineage import LINEAGE, row_params
from unipic.pipeline.output.layout import CARD, DATA, REJECTED
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.records import OUTPUT_VERSION
from unipic.pipeline.stages.parts import data_schema, kept_names

BEGIN = "<!-- unipic: each run writes the text up to the next mark again; edit what is outside the marks -->"
END = "<!-- unipic: end -->"
CONFIGS_BEGIN = "# unipic: each run writes the lines up to the next mark again; edit what is outside the marks"
CONFIGS_END = "# unipic: end"
LICENCE = "# license: add the licence of your data here, such as cc-by-4.0"
FOREIGN = "README.md in the output is not one of this program, and was left as it is"
_NOUN = {"generate": "images from prompts", "edit": "edited images", "caption": "captions of images"}
_CATEGORY = {"generate": "text-to-image", "edit": "image-to-image", "caption": "image-to-text"}
_MEANING = {
    "id": "the manifest's id; null where it has none",
    "sample": "which image of the row, from 0",
    "prompt": "the prompt",
    "instruction": "the instruction",
    "question": "the question",
    "caption": "the answer",
    "source": "the input image, as the manifest names it",
    "image": "the image: `bytes`, and a file name in `path`",
    "lineage": "where the row comes from, see below",
}
_LINEAGE = {
    "lineage_id": "digest of all that determines the output: equal ids, equal outputs",
    "source_file": "the manifest file, by its name in the manifest's folder",
    "source_row": "its row, from 0",
    "input_sha256": "SHA-256 of the input image",
    "parent_lineage_id": "`lineage_id` of the row whose output the input image is",
    "task": "generate, edit or caption",
    "prompt_sent": "the text that the model was given",
    "params": "the parameters that determine the output, as JSON",
    "seed": "the row's seed",
    "sample_index": "which image of the row, from 0",
    "checkpoint": "SHA-256 of the checkpoint",
    "code_version": "the release and commit, or the digest of the installed sources",
    "output_version": "of the rows and the arithmetic; equal versions are comparable",
    "output_sha256": "SHA-256 of the image's bytes, or of the caption as UTF-8",
}
_OPEN = """```python
import datasets

rows = datasets.load_dataset("PATH/OF/THIS/FOLDER", split="train")
```
`data/*.parquet` also opens in DuckDB, polars, pandas, pyarrow and Ray Data. Digests are binary: `lineage_id.hex()` is
the text that `unipic trace` takes. A copy for others needs no `_unipic/`: it holds the addresses that the job used."""


@dataclass(frozen=True)
class Counts:
    """Rows of an output: planned, and by outcome so far."""

    rows: int
    ok: int
    rejected: int


def counted(ledger: Ledger, run: Run) -> Counts:
    """The counts from all receipts."""
    ok = rejected = 0
    for receipt in ledger.receipts(ledger.snapshot(run)):
        ok, rejected = ok + receipt.ok, rejected + receipt.rejected
    return Counts(sum(one.rows for one in run.files) * run.samples_per_row, ok, rejected)


def write_card(ledger: Ledger, job: Job, run: Run, counts: Counts) -> str:
    """Bring the card up to date. A card that cannot be written costs no run.

    Returns:
        Why it was not written; "" where it is up to date.
    """
    uri = ledger.uri(CARD)
    try:
        before = ledger.storage.read(uri).decode()
    except ObjectMissing:
        before = ""
    except UnicodeDecodeError:
        return FOREIGN
    except StorageError as error:
        return f"{CARD} of the output is not up to date: {error.message}"
    text = renewed(before, job, run, counts)
    if text is None:
        return FOREIGN
    try:
        if text != before:
            ledger.storage.write(uri, text.encode())
    except StorageError as error:
        return f"{CARD} of the output is not up to date: {error.message}"
    return ""


def renewed(before: str, job: Job, run: Run, counts: Counts) -> str | None:
    """The card's text, with what the user wrote in `before`; None where `before` is no card of ours."""
    configs, section = _configs(counts), _section(job, run, counts)
    if not before:
        metadata = f"{LICENCE}\ntask_categories:\n- {_CATEGORY[job.task]}\ntags:\n- synthetic\n"
        before = f"---\n{metadata}{CONFIGS_BEGIN}\n{CONFIGS_END}\n---\n{BEGIN}\n{END}\n"
    text = _between(before, CONFIGS_BEGIN, configs, CONFIGS_END)
    return _between(text, BEGIN, section, END) if text is not None else None


def _between(text: str, begin: str, new: str, end: str) -> str | None:
    """`text` with `new` between two of its lines; None where it lacks one of them."""
    head, first, rest = text.partition(f"{begin}\n")
    _, last, tail = rest.partition(f"{end}\n")
    return f"{head}{first}{new}{last}{tail}" if first and last else None


def _configs(counts: Counts) -> str:
    """The data files as the Hub's YAML has them, of the folders that are there."""
    lines = ["configs:"]
    for name, rows in ((DATA, counts.ok), (REJECTED, counts.rejected)):
        if rows:
            lines += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/*.parquet"]
            lines += ["  default: true"] if name == DATA else []
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def _section(job: Job, run: Run, counts: Counts) -> str:
    left = counts.rows - counts.ok - counts.rejected
    state = f"{counts.ok:,} rows in `data`"
    if counts.rejected:
        state += f", {counts.rejected:,} in `rejected` with the reason of each"
    text = "\n\n".join(
        [
            f"# {run.name}",
            f"{_NOUN[job.task].capitalize()}, made by UniPic Batch: {state}"
            + (f"; {left:,} are not processed yet." if left > 0 else "."),
            _OPEN + ("" if job.task == "caption" or job.output.images == "inline" else f"\n{_FILES}"),
            "## How it was made",
            _table(["", ""], _facts(job, run)),
            f"```json\n{json.dumps(row_params(job), indent=1, sort_keys=True)}\n```",
            "## Columns",
            _table(["column", "type", ""], _columns(job)),
            "Fields of `lineage`:",
            _table(["field", "type", ""], [(f"`{f.name}`", _type(f.type), _LINEAGE[f.name]) for f in LINEAGE]),
        ]
    )
    return f"{text}\n"


_FILES = """
Images are files in `images/`; `image.path` starts from this folder:
```python
rows = rows.map(lambda row: {"image": {"path": f"PATH/OF/THIS/FOLDER/{row['image']['path']}"}})
rows = rows.cast_column("image", datasets.Image())
```"""


def _facts(job: Job, run: Run) -> list[tuple[str, ...]]:
    place = job.model.checkpoint
    checkpoint = place if place == BUILTIN_CHECKPOINT else place.rstrip("/").rpartition("/")[2]
    files = f"{len(run.files):,} file{'s' * (len(run.files) != 1)}"
    return [
        ("task", job.task),
        ("checkpoint", f"{checkpoint}, SHA-256 `{run.fields['checkpoint']}`"),
        ("manifest", f"{sum(one.rows for one in run.files):,} rows in {files}"),
        ("images per row", f"{run.samples_per_row}"),
        ("output version", f"{OUTPUT_VERSION}"),
        ("code", f"`{run.epoch.code_version}`"),
    ]


def _columns(job: Job) -> list[tuple[str, ...]]:
    ours = [(f"`{one.name}`", _type(one.type), _MEANING[one.name]) for one in data_schema(job)]
    kept = [(f"`{free}`", "as there", f"the manifest's `{name}`") for name, free in kept_names(job).items()]
    return [*ours, *kept]


def _type(kind: pa.DataType) -> str:
    return "struct" if pa.types.is_struct(kind) else str(kind).replace("fixed_size_binary", "binary")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
