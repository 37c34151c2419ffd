"""Manifests of any columns, also such as careless programs write."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.fakes import all_rows
from unipic.pipeline.job import Job

BROKEN = b"caf\xe9 grey"
REPLACED = "caf\ufffd grey"


def texts(*cells: bytes | str | None) -> pa.Array:
    """A text column whose cells may not be UTF-8: Parquet writes it without a check."""
    return pa.array([one.encode() if isinstance(one, str) else one for one in cells], pa.binary()).view(pa.string())


def write_table(root: Path, **columns: Any) -> None:
    """Write `manifest/a.parquet` under `root`."""
    (root / "manifest").mkdir(parents=True)
    pq.write_table(pa.table(columns), root / "manifest" / "a.parquet")


def write_csv(root: Path, text: str) -> None:
    """Write `manifest/a.csv` under `root`."""
    (root / "manifest").mkdir(parents=True)
    (root / "manifest" / "a.csv").write_text(text, encoding="utf-8")


def grey_png(shade: int = 90) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def rejections(job: Job) -> list[tuple[str, str]]:
    """Kind and message of each rejected row."""
    return [(row["rejection"]["kind"], row["rejection"]["message"]) for row in all_rows(job, "rejected")]
