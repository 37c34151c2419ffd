"""OpenLineage run events of an output, one JSON a line: what a data catalogue needs to draw the job.

Each run has a file of its own: object stores cannot append, and two runs at once must not lose each other's lines. The
events follow the OpenLineage 2-0-2 RunEvent schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from unipic.pipeline.code_version import code_version
from unipic.pipeline.errors import StorageError, redact
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.layout import EVENTS
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.paths import join

SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = "urn:unipic-batch"
ENDS = {"done": "COMPLETE", "rejected": "FAIL", "stopped": "ABORT"}
MAX_INPUTS = 100  # a manifest of many thousand files is named by its folder in run.json


@contextmanager
def emit(
    ledger: Ledger, job: Job, manifest: Manifest, *, warn: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """START now; COMPLETE, FAIL or ABORT when the yielded function is called with the outcome, FAIL after an error.

    Args:
        warn: told that the last event could not be written: that makes no finished run a failed one.
    """
    run_id = str(uuid.uuid4())
    uri = join(ledger.output_uri, EVENTS, f"{run_id}.ndjson")
    start = _event("START", run_id, job, manifest)
    ended = False

    def close(outcome: str) -> None:
        nonlocal ended
        ended = True
        try:
            ledger.storage.write(uri, start + _event(ENDS.get(outcome, "FAIL"), run_id, job, manifest))
        except StorageError as error:
            warn(f"{uri} lacks this run's last event: {error.message}")

    ledger.storage.write(uri, start)
    try:
        yield close
    finally:
        if not ended:
            close("failed")


def _event(kind: str, run_id: str, job: Job, manifest: Manifest) -> bytes:
    inputs = [_dataset(one.uri) for one in manifest.files[:MAX_INPUTS]]
    event = {
        "eventType": kind,
        "eventTime": datetime.now(UTC).isoformat(),
        "run": {"runId": run_id},
        "job": {"namespace": "unipic-batch", "name": job.name},
        "inputs": inputs,
        "outputs": [_dataset(job.output.uri)],
        "producer": f"{PRODUCER}/{code_version()}",
        "schemaURL": SCHEMA,
    }
    return json.dumps(event, sort_keys=True).encode() + b"\n"


def _dataset(uri: str) -> dict[str, str]:
    scheme, found, rest = redact(uri).partition("://")
    if not found:
        return {"namespace": "file", "name": uri}
    bucket, _, key = rest.partition("/")
    return {"namespace": f"{scheme}://{bucket}", "name": key or "/"}
