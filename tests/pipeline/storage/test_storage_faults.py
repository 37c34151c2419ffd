"""What a store does wrong, and what the caller is told: a small S3 that misbehaves to order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unipic.pipeline.errors import AccessDenied, StorageError, StorageFull, StorageUnavailable
from unipic.pipeline.storage.errors import credentials_at_fault
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

pytestmark = pytest.mark.usefixtures("s3_environment")


@dataclass
class Flaky:
    """Objects, and the faults to answer with before serving: an S3 error, "reset", "cut" or "lost"."""

    endpoint_url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[int, str] | str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def storage(self, *, max_attempts: int = 4) -> Storage:
        return _client(self.endpoint_url, max_attempts)


@cache
def _client(endpoint_url: str, max_attempts: int) -> Storage:
    """One for all tests: making a client takes a second of work."""
    return Storage(StorageOptions(endpoint_url=endpoint_url, max_attempts=max_attempts, backoff_max_s=0.01))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[Flaky]]]:
    current: list[Flaky] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def answer(self, status: int, body: bytes, *, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.send_header("ETag", '"etag"')
            self.end_headers()
            self.wfile.write(body)

        def serve(self, work: Callable[[Flaky], None]) -> None:
            flaky = current[-1]
            flaky.asked.append(self.command)
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = flaky.faults.pop(0) if flaky.faults else None
            if fault == "lost":
                flaky.objects[self.path] = data
            if fault in {"reset", "lost"}:
                self.close_connection = True
                self.connection.close()
            elif fault == "cut":
                self.close_connection = True
                self.answer(200, b"hal", length=6)
            elif isinstance(fault, tuple):
                self.answer(fault[0], f"<Error><Code>{fault[1]}</Code><Message>said so</Message></Error>".encode())
            else:
                self.body = data
                work(flaky)

        def do_GET(self) -> None:
            self.serve(self.get)

        def do_PUT(self) -> None:
            self.serve(self.put)

        def get(self, flaky: Flaky) -> None:
            if self.path not in flaky.objects:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                self.answer(200, flaky.objects[self.path])

        def put(self, flaky: Flaky) -> None:
            if self.headers.get("If-None-Match") == "*" and self.path in flaky.objects:
                self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            else:
                flaky.objects[self.path] = self.body
                self.answer(200, b"")

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", current
    http.shutdown()
    http.server_close()
    thread.join(10)


@pytest.fixture
def flaky(server: tuple[str, list[Flaky]]) -> Flaky:
    endpoint_url, current = server
    current.append(Flaky(endpoint_url, {"/b/k": b"served"}))
    return current[-1]


@pytest.mark.parametrize(
    "fault", [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (502, ""), "reset", "cut"]
)
def test_passing_faults_are_outlived(flaky: Flaky, fault: tuple[int, str] | str) -> None:
    flaky.faults = [fault, fault]
    assert flaky.storage().read("s3://b/k") == b"served"
    assert len(flaky.asked) == 3, "our retries are in charge, none below them"


def test_a_store_that_stays_down_is_unavailable_after_every_try(flaky: Flaky) -> None:
    flaky.faults = [(503, "SlowDown")] * 9
    with pytest.raises(StorageUnavailable, match=r"SlowDown: said so.*tried 3 times") as caught:
        flaky.storage(max_attempts=3).read("s3://b/k")
    assert caught.value.retryable
    assert len(flaky.asked) == 3


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_credentials_at_fault_are_told_from_a_denied_object(flaky: Flaky, code: str) -> None:
    flaky.faults = [(403, code), (403, "AccessDenied")]
    storage = flaky.storage()
    with pytest.raises(AccessDenied, match="Renew the credentials") as caught:
        storage.read("s3://b/k")
    assert credentials_at_fault(caught.value)
    with pytest.raises(AccessDenied, match="Access to s3://b/k was denied") as caught:
        storage.read("s3://b/k")
    assert not credentials_at_fault(caught.value)
    assert len(flaky.asked) == 2, "no second try helps"


def test_a_full_store_says_so(flaky: Flaky) -> None:
    flaky.faults = [(507, "XMinioStorageFull")]
    with pytest.raises(StorageFull, match="No space is left for s3://b/new"):
        flaky.storage().write("s3://b/new", b"1")


def test_a_conditional_put_whose_answer_was_lost_is_ours(flaky: Flaky) -> None:
    flaky.faults = [(404, "NoSuchKey"), "lost"]
    assert flaky.storage().put_if_absent("s3://b/receipt", b"mine")
    assert flaky.asked == ["GET", "PUT", "PUT", "GET"], "412 on our own object, read back"


def test_a_store_without_conditions_still_takes_the_first(flaky: Flaky) -> None:
    flaky.faults = [(404, "NoSuchKey"), (501, "NotImplemented")]
    storage = flaky.storage()
    assert storage.put_if_absent("s3://b/receipt", b"mine")
    assert not storage.put_if_absent("s3://b/receipt", b"theirs")


def test_an_unexpected_answer_is_an_error_of_ours(flaky: Flaky) -> None:
    flaky.faults = [(400, "WeirdNewCode")]
    with pytest.raises(StorageError, match="WeirdNewCode"):
        flaky.storage().read("s3://b/k")


def test_missing_credentials_say_which_variables_to_set(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID") as caught:
        Storage(StorageOptions(endpoint_url=flaky.endpoint_url)).read("s3://b/k")
    assert credentials_at_fault(caught.value)
    anonymous = StorageOptions(endpoint_url=flaky.endpoint_url, anonymous=True)
    assert Storage(anonymous).read("s3://b/k") == b"served"


def test_an_endpoint_nobody_listens_at_is_unavailable() -> None:
    options = StorageOptions(endpoint_url="http://127.0.0.1:1", max_attempts=2, backoff_max_s=0.01)
    with pytest.raises(StorageUnavailable, match="tried 2 times"):
        Storage(options).read("s3://b/k")
