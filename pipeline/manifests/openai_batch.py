"""OpenAI batch files as manifests: a request a line.

A file is for one endpoint, as OpenAI's own API has it, and so for one task. What a request asks for and this job cannot
give rejects its row with the reason.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.json_rows import json_lines
from unipic.pipeline.manifests.openai_request import REQUEST, SCHEMA, TASK_OF, row_of

FORMAT = "openai-batch"
LINE = ("custom_id", "method", "url", "body")
ASKED = ["url", REQUEST]
UNUSED_SHOWN = 8
CHUNK_ROWS = 1_000  # held as Python objects beside their text


def is_batch(names: list[str]) -> bool:
    """Whether JSON lines with these columns are requests of an OpenAI batch."""
    return set(LINE) <= set(names)


def table(text: str, uri: str) -> pa.Table:
    """The requests of a file. Raises ManifestError, naming the line, for more than one endpoint or one of others."""
    chunks: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    first: tuple[int, str] | None = None
    for number, value in json_lines(text, uri):
        url = value.get("url") if isinstance(value, dict) else None
        if not isinstance(url, str) or not isinstance(value, dict):
            raise ManifestError(f"{uri}, line {number:,} is no request of an OpenAI batch: it has no url.")
        if url not in TASK_OF:
            raise ManifestError(f"{uri}, line {number:,} is for {url[:100]!r}; UniPic answers {', '.join(TASK_OF)}.")
        first = first or (number, url)
        if url != first[1]:
            raise ManifestError(
                f"{uri} is for several endpoints: line {first[0]:,} for {first[1]}, line {number:,} for {url}.",
                remedy=f"A job does one task. Take them apart: jq -c 'select(.url == \"{url}\")' FILE > PART.jsonl",
            )
        rows.append(row_of(url, value))
        if len(rows) == CHUNK_ROWS:
            chunks.append(pa.Table.from_pylist(rows, schema=SCHEMA))
            rows = []
    return pa.concat_tables([*chunks, pa.Table.from_pylist(rows, schema=SCHEMA)])


class Batch:
    """What the requests of all files of a manifest are for.

    Attributes:
        endpoint: the one of all; "" before there is a request.
        unused: fields of bodies that change nothing here → how many requests have them.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._file = ""
        self.unused: Counter[str] = Counter()

    def add(self, file: str, requests: pa.Table | None) -> None:
        """Args: requests: the columns `ASKED`. Raises ManifestError where they are for another endpoint."""
        if requests is None or not requests.num_rows:
            return
        url = str(requests.column("url")[0])
        if self.endpoint and url != self.endpoint:
            raise ManifestError(
                f"The manifest is for several endpoints: {self._file} for {self.endpoint}, {file} for {url}.",
                remedy="A job does one task: name the files of one endpoint.",
            )
        self.endpoint, self._file = url, file
        texts = pc.struct_field(requests.column(REQUEST), "unused").drop_null().to_pylist()
        self.unused.update(name for text in texts for name in text.split(", "))

    def notes(self) -> list[str]:
        """On what of the requests is not used."""
        if not self.unused:
            return []
        counted = ", ".join(f"{name} ({count:,})" for name, count in self.unused.most_common(UNUSED_SHOWN))
        more = " …" if len(self.unused) > UNUSED_SHOWN else ""
        return [f"fields of requests that change nothing here, and how many requests have them: {counted}{more}"]
