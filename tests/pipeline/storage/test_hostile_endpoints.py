"""Endpoints that stall, drip, redirect, are web pages or leave headers out: a sentence in good time, or good sense."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.endpoints import PAGE, Answer, dripping, endpoint, says, silent
from tests.patience import PROMPT_S
from unipic.pipeline.errors import OutputError, StorageError, StorageUnavailable
from unipic.pipeline.storage import s3, waiting
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

pytestmark = pytest.mark.usefixtures("s3_environment")


def client(endpoint_url: str, *, patience_s: float | None = None, max_attempts: int = 2) -> Storage:
    options = StorageOptions(endpoint_url=endpoint_url, max_attempts=max_attempts, backoff_max_s=0.01)
    return Storage(options, patience_s=patience_s)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_TIMEOUT_S", 1.5)
    monkeypatch.setattr(waiting, "NOTICE_AFTER_S", 0.2)


# --- slow ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [silent, dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "), dripping(b"HTTP/1.1 200 OK\r\n\r\n")],
    ids=["silent", "drips its headers", "drips its body"],
)
def test_an_endpoint_that_takes_for_ever_ends_in_a_sentence(answer: Answer) -> None:
    with endpoint(answer) as url:
        words = rf"{url} did not complete GET s3://b/k within \d+ s \(tried 2 times in \d+ s\).*same command resumes"
        with pytest.raises(StorageUnavailable, match=words) as caught:
            client(url).read("s3://b/k")
        assert caught.value.retryable
        with pytest.raises(StorageUnavailable, match="did not complete LIST s3://b/d"):
            list(client(url).list("s3://b/d"))
    if answer is silent:
        with endpoint(answer) as url, pytest.raises(StorageUnavailable, match="did not complete HEAD s3://b/k"):
            client(url).info("s3://b/k")


def test_a_store_that_takes_no_upload_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MIN_BYTES_PER_S", 2**30)
    with endpoint(silent) as url, pytest.raises(StorageUnavailable, match="did not complete PUT s3://b/k"):
        client(url).write("s3://b/k", bytes(64 * 2**20))


def test_a_long_body_that_keeps_coming_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second each for four pieces, against a limit of a second for a request without a body."""
    monkeypatch.setattr("unipic.pipeline.storage.answers.MIN_BYTES_PER_S", 1000.0)

    def slowly(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4000\r\nETag: "1"\r\n\r\n')
        for _ in range(4):
            connection.sendall(b"x" * 1000)
            time.sleep(0.5)

    with endpoint(slowly) as url:
        assert client(url, max_attempts=1).read("s3://b/k") == b"x" * 4000


def test_patience_bounds_an_operation_with_all_its_attempts() -> None:
    with endpoint(silent) as url:
        began_s = time.monotonic()
        with pytest.raises(StorageUnavailable, match=r"did not complete .*tried 1 time in"):
            client(url, patience_s=1.5, max_attempts=20).read("s3://b/k")
        assert time.monotonic() - began_s < PROMPT_S


def test_what_takes_long_is_said_once_and_each_retry_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "NOTICE_AFTER_S", 0.2)
    slow_down = says("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")

    def late(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.5)
        says("200 OK", b"served", ETag='"1"')(connection, request)

    with endpoint(slow_down, late) as url, caplog.at_level(logging.INFO, "unipic.storage"):
        assert client(url).read("s3://b/k") == b"served"
        what = f"{url}: GET s3://b/k"
        notices = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        retries = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
        assert [line.startswith(f"Waiting for {what} (") for line in notices] == [True]
        assert len(retries) == 1 and retries[0].startswith(f"{what}: attempt 1 of 2 failed, the next in 0.0 s: ")
        assert "SlowDown" in retries[0]


# --- no S3 at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "403 Forbidden"])
@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.read("s3://b/k"),
        lambda storage: list(storage.list("s3://b/d", recursive=True)),
        lambda storage: storage.write("s3://b/k", b"1"),
        lambda storage: storage.exists("s3://b/k"),
    ],
    ids=["read", "list", "write", "exists"],
)
def test_a_web_page_where_s3_should_be_is_named(call: Callable[[Storage], object], status: str) -> None:
    with endpoint(says(status, PAGE, Content_Type="text/html; charset=utf-8", Connection="keep-alive")) as url:
        with pytest.raises(
            StorageError, match=rf"^{url} is not an S3 endpoint: .*Check storage\.endpoint_url"
        ) as caught:
            call(client(url))
        assert not caught.value.retryable


def test_an_answer_that_is_no_http_is_named() -> None:
    with (
        endpoint(dripping(b"SSH-2.0-OpenSSH_9.9\r\n")) as url,
        pytest.raises(StorageUnavailable, match="the answer is not HTTP"),
    ):
        client(url).read("s3://b/k")


def test_a_page_of_a_proxy_that_will_pass_is_retried() -> None:
    with endpoint(says("502 Bad Gateway", PAGE), says("200 OK", b"served", ETag='"1"')) as url:
        assert client(url).read("s3://b/k") == b"served"


def test_a_page_that_is_stored_in_s3_is_an_object() -> None:
    with endpoint(says("200 OK", PAGE, Content_Type="text/html", ETag='"1"', x_amz_request_id="1")) as url:
        assert client(url).read("s3://b/index.html") == PAGE


def test_json_where_a_listing_should_be_is_no_empty_folder() -> None:
    with (
        endpoint(says("200 OK", b'{"ok": true}', Content_Type="application/json")) as url,
        pytest.raises(StorageError, match="is not an S3 endpoint: it answered with something other than a listing"),
    ):
        list(client(url).list("s3://b/d"))


@pytest.mark.parametrize(
    "item",
    [
        "<Size>3</Size>",
        "<Key></Key><Size>3</Size>",
        "<Key>d/a</Key><Size>many</Size>",
        "<Key>d/a</Key><Size>-3</Size>",
        "<Key>d/a</Key><Size>3</Size><LastModified>yesterday</LastModified>",
    ],
)
def test_a_listing_with_a_name_a_size_or_a_time_that_is_none_ends_in_a_sentence(item: str) -> None:
    listing = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{item}</Contents></ListBucketResult>"
    with (
        endpoint(says("200 OK", listing.encode(), Content_Type="application/xml")) as url,
        pytest.raises(StorageError, match=r"The store's answer about s3://b/d is none of S3: a name, a size or a time"),
    ):
        list(client(url).list("s3://b/d"))


# --- redirects -------------------------------------------------------------------------------------------------


def test_an_answer_from_another_host_is_refused() -> None:
    with (
        endpoint(says("200 OK", b"stolen", ETag='"1"')) as other,
        endpoint(says("307 Temporary Redirect", Location=f"{other}/b/k?X-Amz-Signature=secret")) as url,
        pytest.raises(StorageError, match=rf"The store redirects {url}/b/k to {other}/b/k.*storage\.region") as caught,
    ):
        client(url).read("s3://b/k")
    assert "secret" not in str(caught.value) and not caught.value.retryable


@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
def test_a_redirect_that_leads_nowhere_or_in_a_circle_ends_in_a_sentence(status: str) -> None:
    with endpoint(says(status)) as url, pytest.raises(StorageError, match=r"The store redirects"):
        client(url).read("s3://b/k")
    with endpoint(says(status, Location="/b/k")) as url, pytest.raises(StorageError, match=r"s3://b/k"):
        client(url).read("s3://b/k")


# --- headers left out ------------------------------------------------------------------------------------------


def test_an_object_without_etag_is_versioned_by_its_time_or_not_at_all() -> None:
    with endpoint(says("200 OK", b"data", Last_Modified="Sat, 21 Nov 2026 10:00:00 GMT")) as url:
        info = client(url).info("s3://b/k")
        assert (info.size_bytes, info.version) == (4, "modified 2026-11-21T10:00:00Z")
    with endpoint(says("200 OK", b"data")) as url:
        storage = client(url)
        assert storage.info("s3://b/k").version == ""
        assert storage.read("s3://b/k") == b"data"
        storage.write("s3://b/k", b"more")
        with storage.open("s3://b/k") as file:
            assert file.read() == b"data"


def test_an_object_of_unknown_length_is_read_up_to_the_limit() -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (b"one ", b"two ")) + b"0\r\n\r\n"
    with endpoint(says("200 OK", body, Transfer_Encoding="chunked", ETag='"1"')) as url:
        assert client(url).read("s3://b/k") == b"one two "
        with pytest.raises(StorageError, match="8 bytes, more than the 5 allowed"):
            client(url).read("s3://b/k", max_bytes=5)
        with pytest.raises(StorageError, match="does not say how large s3://b/k is"):
            client(url).info("s3://b/k")


def test_a_store_that_ignores_ranges_is_named() -> None:
    with (
        endpoint(says("200 OK", b"x" * 200_000, ETag='"1"')) as url,
        pytest.raises(StorageError, match="ignores byte ranges"),
        client(url).open("s3://b/k") as file,
    ):
        file.seek(150_000)
        file.read()


def test_a_listing_that_lacks_etags_is_read_and_one_that_breaks_off_is_refused() -> None:
    item = b"<Contents><Key>d/x</Key><Size>4</Size></Contents>"
    whole = b"<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>" % item
    with endpoint(says("200 OK", whole)) as url:
        assert [(info.uri, info.version) for info in client(url).list("s3://b/d")] == [("s3://b/d/x", "")]
    broken = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>" % item
    with (
        endpoint(says("200 OK", broken)) as url,
        pytest.raises(StorageError, match="breaks off the listing of s3://b/d"),
    ):
        list(client(url).list("s3://b/d"))


# --- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["/tmp/a\0b", "a\0b", "s3://b/a\0b", "s3://b/\udcff", "x/\ud800"])
def test_characters_that_no_path_can_hold_are_named(uri: str) -> None:
    with endpoint(says("200 OK")) as url:
        storage = client(url)
        for call in (storage.read, storage.info, storage.open, storage.exists, storage.delete, storage.check_writable):
            with pytest.raises((StorageError, OutputError), match=r"NUL character|not valid Unicode"):
                call(uri)
        with pytest.raises(StorageError, match=r"NUL character|not valid Unicode"):
            list(storage.list(uri))
        with pytest.raises(StorageError, match=r"NUL character|not valid Unicode"):
            storage.glob(f"{uri}/*")


# --- processes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way_out", ["", "del storage; import gc; gc.collect()", "os._exit(0)"])
def test_a_process_with_open_connections_ends_without_a_word(way_out: str) -> None:
    with endpoint(says("200 OK", b"data", ETag='"1"')) as url:
        code = (
            "import os\nfrom unipic.pipeline.storage.options import StorageOptions\n"
            "from unipic.pipeline.storage.storage import Storage\n"
            f"storage = Storage(StorageOptions(endpoint_url={url!r}))\n"
            f"assert storage.read('s3://b/k') == b'data'\n{way_out}\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_and_its_parent_both_go_on() -> None:
    with endpoint(says("200 OK", b"data", ETag='"1"')) as url:
        storage = client(url)
        assert storage.read("s3://b/k") == b"data"
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if storage.read("s3://b/k") == b"data" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert storage.read("s3://b/k") == b"data"
