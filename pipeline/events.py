"""OpenLineage run events of an output, one JSON a line: what a data catalogue needs to draw the job.

The events follow the OpenLineage 2-0-2 RunEvent schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.context import code_version
from pipeline.errors import ObjectMissing, redact
from pipeline.job import Job
from pipeline.ledger import META, Ledger
from pipeline.manifest import Manifest
from pipeline.storage import join

EVENTS = f"{META}/events.ndjson"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = "urn:unipic-batch"
ENDS = {"done": "COMPLETE", "rejected": "FAIL", "stopped": "ABORT"}
MAX_INPUTS = 100  # a manifest of many thousand files is named by its folder in run.json


@contextmanager
def emit(ledger: Ledger, job: Job, manifest: Manifest) -> Iterator[Callable[[str], None]]:
    """START now; COMPLETE, FAIL or ABORT when the yielded function is told the outcome, FAIL when the body raises."""
    run_id = str(uuid.uuid4())
    ended = False

    def close(outcome: str) -> None:
        nonlocal ended
        ended = True
        _append(ledger, _event(ENDS.get(outcome, "FAIL"), run_id, job, manifest))

    _append(ledger, _event("START", run_id, job, manifest))
    try:
        yield close
    finally:
        if not ended:
            close("failed")


def _event(kind: str, run_id: str, job: Job, manifest: Manifest) -> dict[str, Any]:
    inputs = [_dataset(one.uri) for one in manifest.files[:MAX_INPUTS]]
    return {
        "eventType": kind,
        "eventTime": datetime.now(UTC).isoformat(),
        "run": {"runId": run_id},
        "job": {"namespace": "unipic-batch", "name": job.name},
        "inputs": inputs,
        "outputs": [_dataset(job.output.uri)],
        "producer": f"{PRODUCER}/{code_version()}",
        "schemaURL": SCHEMA,
    }


def _dataset(uri: str) -> dict[str, str]:
    scheme, found, rest = redact(uri).partition("://")
    if not found:
        return {"namespace": "file", "name": uri}
    bucket, _, key = rest.partition("/")
    return {"namespace": f"{scheme}://{bucket}", "name": key or "/"}


def _append(ledger: Ledger, event: dict[str, Any]) -> None:
    """Object stores cannot append: read, add a line, write. A run adds two lines, so the file stays small."""
    uri = join(ledger.output_uri, EVENTS)
    try:
        before = ledger.storage.read(uri)
    except ObjectMissing:
        before = b""
    ledger.storage.write(uri, before + json.dumps(event, sort_keys=True).encode() + b"\n")
