"""An output as the result and error files of an OpenAI batch: an answer a line, images as base64."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from unipic.pipeline.audit.images import image_bytes
from unipic.pipeline.audit.outcomes import Outcome, outcomes
from unipic.pipeline.audit.rejections import Rejection
from unipic.pipeline.audit.whole_file import whole_file
from unipic.pipeline.errors import RejectionKind
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.storage.storage import Storage

MODEL = "unipic"
_SERVERS_FAULT = {
    RejectionKind.OUT_OF_MEMORY: 500,
    RejectionKind.REPLICA_FAILED: 500,
    RejectionKind.REPLICA_CRASHED: 500,
    RejectionKind.SOURCE_UNAVAILABLE: 503,
}


@dataclass(frozen=True)
class ExportedBatch:
    """What was written.

    Attributes:
        answers: requests with a result, of which `partial` have fewer images than they asked for.
        errors: requests without one, in the file `errors_file`; "" where there are none.
        undone: requests that no run has come to yet; they are in neither file.
    """

    answers: int
    partial: int
    errors: int
    errors_file: str
    undone: int


def export_batch(output_uri: str, to: Path, storage: Storage, *, force: bool = False) -> ExportedBatch:
    """Write the results under `output_uri` to the local file `to`, and errors to a file beside it.

    Both appear when they are whole. A request of whose images some were rejected is answered with the others.

    Raises:
        JobError: a file is there or cannot be written.
        OutputError: no run has begun there, or a receipt or a part is damaged.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    errors_file = to.with_name(f"{to.stem}.errors{to.suffix}")
    answers = partial = errors = 0
    with ExitStack() as files:
        results = files.enter_context(whole_file(to, force=force))
        faults: IO[str] | None = None
        for outcome in outcomes(ledger, run, ["caption"] if run.task == "caption" else ["sample", "image"]):
            if outcome.samples:
                _write(results, _answer(outcome, ledger, run))
                answers, partial = answers + 1, partial + bool(outcome.rejections)
            else:
                faults = faults or files.enter_context(whole_file(errors_file, force=force))
                _write(faults, _error(outcome))
                errors += 1
    total = sum(file.rows for file in run.files)
    return ExportedBatch(answers, partial, errors, str(errors_file) if errors else "", total - answers - errors)


def _write(stream: IO[str], line: dict[str, Any]) -> None:
    stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _answer(outcome: Outcome, ledger: Ledger, run: Run) -> dict[str, Any]:
    lineage = outcome.samples[0]["lineage"]
    created = int(outcome.finished)
    if run.task == "caption":
        message = {"role": "assistant", "content": outcome.samples[0]["caption"], "refusal": None}
        body: dict[str, Any] = {
            "id": f"chatcmpl-{lineage['lineage_id'][:24]}",
            "object": "chat.completion",
            "created": created,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        }
    else:
        images = [image_bytes(row["image"], ledger.output_uri, ledger.storage) for row in outcome.samples]
        body = {
            "created": created,
            "data": [{"b64_json": base64.b64encode(image).decode()} for image in images],
            "output_format": run.fields["params"]["image_format"],
        }
    return _line(outcome, 200, lineage["lineage_id"], body)


def _error(outcome: Outcome) -> dict[str, Any]:
    first: Rejection = outcome.rejections[0]
    status = _SERVERS_FAULT.get(first.kind, 400)  # type: ignore[call-overload]
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": first.message, "type": kind, "param": None, "code": first.kind}
    request = hashlib.sha256(f"{outcome.file}\0{outcome.row}".encode()).hexdigest()
    return _line(outcome, status, request, {"error": error})


def _line(outcome: Outcome, status: int, request: str, body: dict[str, Any]) -> dict[str, Any]:
    """Args: request: hexadecimal; of a result its lineage id, which `unipic trace` finds."""
    return {
        "id": f"batch_req_{request[:24]}",
        "custom_id": outcome.id if outcome.id is not None else f"{outcome.file}:{outcome.row}",
        "response": {"status_code": status, "request_id": request, "body": body},
        "error": None,
    }
