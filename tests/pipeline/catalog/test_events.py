"""OpenLineage events: jobs connected by their data sets, in the client's own types, sent without harm to the job."""

from __future__ import annotations

import importlib
import json
import pkgutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import openlineage.client.generated as generated
import pyarrow.parquet as pq
import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.catalog import delivery
from unipic.pipeline.catalog.datasets import DataSet
from unipic.pipeline.catalog.events import Ending, emit
from unipic.pipeline.job import Job
from unipic.pipeline.preflight import preflight
from unipic.pipeline.storage.storage import Storage

PARENT = "01957f6a-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path) -> Iterator[None]:
    """Without the machine's own configuration; the client adds variables of its own."""
    clean = {"HOME": str(tmp_path)}
    with mock.patch.dict("os.environ", clean):
        yield


def run_with_events(job: Job, ending: Ending | None = None) -> list[str]:
    """Run `job` without Ray, with the events of a run; what was warned of."""
    warnings: list[str] = []
    _, manifest, ledger = preflight(job, Storage())
    with emit(ledger, job, manifest, warn=warnings.append) as close:
        run_here(job)
        close(ending or Ending("done", ok=1, rejected=0))
    return warnings


def events_of(job: Job) -> list[dict[str, Any]]:
    files = sorted(Path(job.output.uri, "_unipic", "events").glob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def without_tags(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as they were before the client tagged them with its own version."""
    for event in events:
        for part in (event["run"], event["job"]):
            part["facets"].pop("tags", None)
    return events


def unsent(job: Job) -> list[Path]:
    return sorted(Path(job.output.uri, "_unipic", "events").glob("*.unsent"))


def prompts(root: Path) -> Job:
    write_prompts(root / "manifest" / "a.parquet", ["a", "b"])
    return make_job(root)


def chained(root: Path, task: str, manifest: str) -> Job:
    params = {"image_size": 16} | ({"instruction": "make it night"} if task == "edit" else {})
    source = {"manifest": manifest, "columns": {"id": "id", "image": "image"}}
    return make_job(root, task, input=source, params=params, output__uri=str(root / task))


def sources(events: list[dict[str, Any]], name: str) -> set[str]:
    """The data sets that `name` is made from, through any number of jobs."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        at = waiting.pop()
        made = [event for event in events if at in {one["name"] for one in event["outputs"]}]
        new = {one["name"] for event in made for one in event["inputs"]} - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("images", ["inline", "files"])
def test_the_events_of_chained_jobs_lead_from_an_edit_to_the_prompts(tmp_path: Path, images: str) -> None:
    prompts(tmp_path)
    generate = make_job(tmp_path, output__images=images)
    caption = chained(tmp_path, "caption", f"{generate.output.uri}/data/*.parquet")
    edit = chained(tmp_path, "edit", f"{generate.output.uri}/data")
    for job in (generate, caption, edit):
        assert run_with_events(job) == []
    events = [event for job in (generate, caption, edit) for event in events_of(job)]
    images_read = {f"{generate.output.uri}/data"}
    assert sources(events, f"{edit.output.uri}/data") == {*images_read, str(tmp_path / "manifest")}
    assert sources(events, f"{caption.output.uri}/data") == {*images_read, str(tmp_path / "manifest")}


def test_a_manifest_of_copied_rows_leads_to_the_output_that_they_are_from(tmp_path: Path) -> None:
    generate = prompts(tmp_path)
    run_with_events(generate)
    (tmp_path / "chosen").mkdir()
    rows = pq.read_table(f"{generate.output.uri}/data", columns=["id", "image", "lineage"]).slice(1, 1)
    pq.write_table(rows, tmp_path / "chosen" / "rows.parquet")
    edit = chained(tmp_path, "edit", str(tmp_path / "chosen" / "rows.parquet"))
    run_with_events(edit)
    found = sources([*events_of(generate), *events_of(edit)], f"{edit.output.uri}/data")
    manifests = {str(tmp_path / "chosen" / "rows.parquet"), str(tmp_path / "manifest")}
    assert found == {*manifests, f"{generate.output.uri}/data"}


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("/a/b/", "file", "/a/b"),
        ("file:///a/b", "file", "/a/b"),
        ("s3://bucket/a/b/", "s3://bucket", "a/b"),
        ("s3://bucket", "s3://bucket", "/"),
        ("gs://bucket/a", "gs://bucket", "a"),
        ("s3://bucket/a?X-Amz-Signature=x", "s3://bucket", "a"),
    ],
)
def test_data_sets_are_named_as_openlineage_names_them(uri: str, namespace: str, name: str) -> None:
    at = DataSet.at(uri)
    assert (at.namespace, at.name) == (namespace, name)


def test_a_relative_path_is_the_same_data_set_as_its_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataSet.at("out/data") == DataSet.at(str(tmp_path / "out" / "data"))


def facet_types() -> dict[str, type]:
    """Facet's name in its schema's address → the client's type of it."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for kind in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(kind, type) and hasattr(kind, "_get_schema"):
                found[kind._get_schema()] = kind
    return found


def test_every_facet_is_complete_in_the_clients_own_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/daily.captions/{PARENT}")
    job = prompts(tmp_path)
    run_with_events(job, Ending("rejected", ok=1, rejected=1, message="1 rows rejected, 0 allowed"))
    types = facet_types()
    start, last = events_of(job)
    assert (start["eventType"], last["eventType"]) == ("START", "FAIL")
    for event in (start, last):
        assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
        parts = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
        for facet in (
            facet
            for part in parts
            for group in ("facets", "inputFacets", "outputFacets")
            for facet in part.get(group, {}).values()
        ):
            types[facet["_schemaURL"]](**{name: value for name, value in facet.items() if not name.startswith("_")})
    assert set(last["run"]["facets"]) == {"processing_engine", "parent", "errorMessage"}
    assert last["run"]["facets"]["parent"]["run"]["runId"] == PARENT
    assert last["run"]["facets"]["errorMessage"]["message"] == "1 rows rejected, 0 allowed"
    assert set(last["job"]["facets"]) == {"jobType", "sourceCode"}
    assert set(last["inputs"][0]["facets"]) == {"dataSource", "schema"}
    assert last["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 2
    data, rejected = last["outputs"]
    assert {"dataSource", "schema", "storage", "symlinks"} == set(data["facets"])
    assert [one["outputFacets"]["outputStatistics"]["rowCount"] for one in (data, rejected)] == [1, 1]


def test_an_error_is_in_the_last_event_and_is_raised(tmp_path: Path) -> None:
    job = prompts(tmp_path)
    _, manifest, ledger = preflight(job, Storage())
    with pytest.raises(ValueError, match="no more"), emit(ledger, job, manifest, warn=pytest.fail):
        raise ValueError("no more disks at https://me:secret@x.org/a?sig=1")
    last = events_of(job)[-1]
    assert last["eventType"] == "FAIL" and "no more disks" in last["run"]["facets"]["errorMessage"]["message"]
    assert "secret" not in json.dumps(last)


class Catalogue:
    """An HTTP endpoint that keeps what it gets; `hangs` never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.events: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.gone = threading.Event()
        catalogue = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hangs:
                    catalogue.gone.wait()
                    return
                catalogue.events.append(json.loads(body))
                catalogue.keys.add(self.headers.get("Authorization"))
                self.send_response(201)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.gone.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def kinds(self) -> list[str]:
        return [event["eventType"] for event in self.events]


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    one = Catalogue()
    yield one
    one.close()


@pytest.mark.parametrize("by", ["job", "environment", "openlineage.yml"])
def test_events_go_where_the_job_or_the_environment_say(
    tmp_path: Path, catalogue: Catalogue, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prompts(tmp_path)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k")
    if by == "job":
        job = make_job(tmp_path, openlineage__url=catalogue.url, openlineage__namespace="team")
    elif by == "environment":
        monkeypatch.setenv("OPENLINEAGE_URL", catalogue.url)
    else:
        auth = "auth: {type: api_key, apiKey: k}"
        (tmp_path / "ol.yml").write_text(f"transport: {{type: http, url: '{catalogue.url}', {auth}}}\n")
        monkeypatch.setenv("OPENLINEAGE_CONFIG", str(tmp_path / "ol.yml"))
    assert run_with_events(job) == []
    assert without_tags(catalogue.events) == events_of(job) and catalogue.kinds == ["START", "COMPLETE"]
    assert catalogue.events[0]["job"]["namespace"] == ("team" if by == "job" else "unipic-batch")
    assert catalogue.keys == {"Bearer k"} and unsent(job) == []


def test_events_are_appended_to_a_file_that_several_jobs_share(tmp_path: Path, catalogue: Catalogue) -> None:
    shared = tmp_path / "events.ndjson"
    prompts(tmp_path)
    first = make_job(tmp_path, openlineage__file=str(shared))
    second = make_job(
        tmp_path, openlineage={"file": str(shared), "url": catalogue.url}, output__uri=str(tmp_path / "second")
    )
    for job in (first, second):
        assert run_with_events(job) == []
    lines = [json.loads(line) for line in shared.read_text().splitlines()]
    assert without_tags(lines) == [*events_of(first), *events_of(second)]
    assert without_tags(catalogue.events) == events_of(second)


def test_nothing_is_sent_or_printed_where_nothing_is_configured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prompts(tmp_path)
    run_with_events(job)
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    run_with_events(job)
    assert unsent(job) == [] and capfd.readouterr() == ("", "")


def test_events_that_found_no_catalogue_are_kept_and_sent_by_the_next_run(tmp_path: Path, catalogue: Catalogue) -> None:
    prompts(tmp_path)
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        down = make_job(tmp_path, openlineage__url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        (warning,) = run_with_events(down)
    assert "OpenLineage events were not sent" in warning and "the next run of this job sends them" in warning
    assert len(unsent(down)) == 1 and verify(down.output.uri, Storage()).ok
    earlier = events_of(down)
    up = make_job(tmp_path, openlineage__url=catalogue.url)
    assert run_with_events(up) == []
    assert without_tags(catalogue.events)[:2] == earlier and catalogue.kinds == ["START", "COMPLETE"] * 2
    assert unsent(up) == []


def test_a_catalogue_that_never_answers_holds_no_job_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CLOSE_S", 0.2)
    hanging = Catalogue(hangs=True)
    try:
        prompts(tmp_path)
        job = make_job(tmp_path, openlineage__url=hanging.url)
        _, manifest, ledger = preflight(job, Storage())
        warnings: list[str] = []
        with emit(ledger, job, manifest, warn=warnings.append) as close:
            started = time.monotonic()
            close(Ending("done"))
        assert time.monotonic() - started < delivery.TIMEOUT_S
        assert "no answer within 0.2 s" in warnings[0] and len(unsent(job)) == 1
    finally:
        with suppress(OSError):
            hanging.close()


def test_a_configuration_that_makes_no_sense_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ol.yml").write_text("transport: {type: pigeon}\n")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(tmp_path / "ol.yml"))
    job = prompts(tmp_path)
    (warning,) = run_with_events(job)
    assert "OpenLineage is not configured correctly" in warning
    assert [event["eventType"] for event in events_of(job)] == ["START", "COMPLETE"]
