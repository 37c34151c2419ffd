"""OpenLineage events of a run: what a data catalogue needs to draw a job between its data sets.

Each run has a file of its own in the output: object stores cannot append, and two runs at once must not lose each
other's lines. The same events go where the job or the environment say (`delivery.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unipic.pipeline.catalog.datasets import DataSet, further_inputs, manifest_data_set
from unipic.pipeline.catalog.delivery import Sender, events_path
from unipic.pipeline.catalog.facets import input_facets, output_facets, set_producer
from unipic.pipeline.code_version import code_version
from unipic.pipeline.errors import StorageError, redact
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.layout import DATA, REJECTED
from unipic.pipeline.output.ledger import Ledger

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent, RunState

NAMESPACE = "unipic-batch"
ENDS = {"done": "COMPLETE", "rejected": "FAIL", "stopped": "ABORT"}


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        outcome: "done", "rejected" or "stopped"; "failed" after an error.
        ok, rejected: rows of the whole output; None where they are not known.
        message: why, where that needs saying.
    """

    outcome: str
    ok: int | None = None
    rejected: int | None = None
    message: str = ""


@contextmanager
def emit(
    ledger: Ledger, job: Job, manifest: Manifest, *, warn: Callable[[str], None]
) -> Iterator[Callable[[Ending], None]]:
    """START now; COMPLETE, FAIL or ABORT when the yielded function is called with the ending, FAIL after an error.

    Args:
        warn: told that the last event could not be written, or that events could not be sent: that makes no finished
            run a failed one.
    """
    from openlineage.client.serde import Serde
    from openlineage.client.uuid import generate_new_uuid

    run = _Run(str(generate_new_uuid()), job, manifest, _inputs(ledger, job, manifest))
    uri = ledger.uri(events_path(run.id))
    start = run.event("START")
    lines = Serde.to_json(start).encode() + b"\n"
    ended = False

    def close(ending: Ending) -> None:
        nonlocal ended
        ended = True
        last = run.event(ENDS.get(ending.outcome, "FAIL"), ending)
        try:
            ledger.storage.write(uri, lines + Serde.to_json(last).encode() + b"\n")
        except StorageError as error:
            warn(f"{uri} lacks this run's last event: {error.message}")
        sender.send(last)
        sender.close()

    ledger.storage.write(uri, lines)
    sender = Sender(ledger, job.openlineage, run.id, warn=warn)
    sender.send(start)
    try:
        yield close
    except BaseException as error:
        if not ended:
            close(Ending("failed", message=redact(str(error)) or type(error).__name__))
        raise
    if not ended:
        close(Ending("failed"))


def _inputs(ledger: Ledger, job: Job, manifest: Manifest) -> list[InputDataset]:
    """Each data set once, the manifest first."""
    from openlineage.client.event_v2 import InputDataset

    source = manifest_data_set(job, manifest, ledger.storage)
    facets, statistics = input_facets(source, job, manifest)
    found = {source: InputDataset(source.namespace, source.name, facets=facets, inputFacets=statistics)}
    try:
        for one in further_inputs(job, manifest, ledger.storage):
            found.setdefault(one, InputDataset(one.namespace, one.name, facets=input_facets(one)[0]))
    except Exception:  # a manifest may hold anything; what cannot be looked up is missing in a drawing of the job
        pass
    return list(found.values())


@dataclass(frozen=True)
class _Run:
    id: str
    job: Job
    manifest: Manifest
    inputs: list[InputDataset]

    def event(self, kind: str, ending: Ending | None = None) -> RunEvent:
        from openlineage.client import event_v2 as ol

        producer = set_producer()
        return ol.RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=_state(kind),
            run=ol.Run(self.id, facets=self._run_facets(ending)),
            job=ol.Job(_namespace(self.job), self.job.name, facets=self._job_facets()),
            inputs=self.inputs,
            outputs=self._outputs(ending),
            producer=producer,
        )

    def _outputs(self, ending: Ending | None) -> list[OutputDataset]:
        from openlineage.client.event_v2 import OutputDataset

        rows = {DATA: ending.ok if ending else None, REJECTED: ending.rejected if ending else None}
        found = []
        for folder in (DATA, *([REJECTED] if rows[REJECTED] else [])):
            facets, statistics = output_facets(self.job, folder, rows[folder])
            at = DataSet.at(f"{self.job.output.uri.rstrip('/')}/{folder}")
            found.append(OutputDataset(at.namespace, at.name, facets=facets, outputFacets=statistics))
        return found

    def _run_facets(self, ending: Ending | None) -> dict[str, Any]:
        from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
        from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet

        facets: dict[str, Any] = {
            "processing_engine": ProcessingEngineRunFacet(version=code_version(), name="UniPic Batch"),
        }
        if (parent := _parent()) is not None:
            facets["parent"] = parent
        if ending is not None and ENDS.get(ending.outcome, "FAIL") == "FAIL":
            message = ending.message or "the run failed"
            facets["errorMessage"] = ErrorMessageRunFacet(message=message, programmingLanguage="Python")
        return facets

    def _job_facets(self) -> dict[str, Any]:
        from openlineage.client.generated.job_type_job import JobTypeJobFacet
        from openlineage.client.generated.source_code_job import SourceCodeJobFacet

        source = json.dumps(self.job.model_dump(mode="json", exclude_defaults=True), indent=1, sort_keys=True)
        return {
            "jobType": JobTypeJobFacet(processingType="BATCH", integration="UNIPIC", jobType=self.job.task.upper()),
            "sourceCode": SourceCodeJobFacet(language="JSON", sourceCode=redact(source)),
        }


def _state(kind: str) -> RunState:
    from openlineage.client.event_v2 import RunState

    return RunState(kind)


def _namespace(job: Job) -> str:
    return job.openlineage.namespace or os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE


def _parent() -> Any:
    """The run that started this one, as schedulers state it: OPENLINEAGE_PARENT_ID=<namespace>/<job>/<run id>."""
    from openlineage.client.generated import parent_run

    namespace, _, rest = os.environ.get("OPENLINEAGE_PARENT_ID", "").partition("/")
    name, _, run_id = rest.rpartition("/")
    if not (namespace and name and run_id):
        return None
    try:
        return parent_run.ParentRunFacet(parent_run.Run(runId=run_id), parent_run.Job(namespace=namespace, name=name))
    except ValueError:  # no UUID
        return None
