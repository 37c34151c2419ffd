"""Pictures from the web: what is fetched, what is refused before a connection, what is given up in time.

Names resolve to real servers on this machine's loopback, which only the tests' own `permits` lets through.
"""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.errors import RowError
from unipic.pipeline.images.addresses import is_public
from unipic.pipeline.images.decode import ImageLimits
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.images.http import HttpSource
from unipic.pipeline.storage.storage import Storage

BODY = b"a picture's bytes"
CANARY = "canary-9b2e"
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """A server of one test: `answers` by path, and the requests it saw."""

    port: int
    answers: dict[str, Answer]
    seen: list[tuple[str, str]] = field(default_factory=list)  # (host header, path)

    def url(self, path: str, host: str = "pictures.example", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def source(self, **changes: object) -> HttpSource:
        """Everything resolves to this machine, which may be connected to."""
        how = {"deadline_s": 5.0, "backoff_s": 0.001, "resolve": to("127.0.0.1"), "permits": lambda _: True}
        return HttpSource(**{**how, **changes})  # type: ignore[arg-type]

    def get(self, path: str, *, max_bytes: int = 1000, **changes: object) -> bytes:
        return self.source(**changes).get(self.url(path), max_bytes=max_bytes)


def to(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


@contextmanager
def serving(tls: ssl.SSLContext | None = None, **answers: Answer) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append((self.headers["Host"], self.path))
            server.answers[self.path.partition("?")[0].strip("/")](self)

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # clients leave in the middle on purpose

    httpd = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    server = Server(httpd.server_port, dict(answers))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@contextmanager
def nobody_may_call() -> Iterator[int]:
    """The port of a listening socket that must see no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError, match="temporarily unavailable"):
            listener.accept()


def send(body: bytes = BODY, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def redirect(to_url: str, status: int = 302) -> Answer:
    return send(b"", status, Location=to_url)


def fault(call: Callable[[], object]) -> RowError:
    with pytest.raises(RowError, match=r".+") as caught:
        call()
    assert CANARY not in str(caught.value)
    return caught.value


# --- what is fetched ------------------------------------------------------------------------------------------------


def test_a_picture_is_fetched_with_its_query_under_the_hosts_own_name() -> None:
    with serving(a=send()) as server:
        assert server.get("/a?sig=x%2Fy&s=ü q") == BODY
        assert server.seen == [(f"pictures.example:{server.port}", "/a?sig=x%2Fy&s=%C3%BC%20q")]


def test_redirects_are_followed_up_to_five() -> None:
    with serving(a=send()) as server:
        for number in range(6):
            server.answers[f"r{number + 1}"] = redirect(f"/r{number}")
        server.answers["r0"] = redirect(server.url("/a", host="other.example"), 307)
        assert server.get("/r4") == BODY
        assert server.seen[-1][0].startswith("other.example:")
        assert fault(lambda: server.get("/r5")).kind == "ForbiddenSource"


def test_a_packed_body_is_unpacked() -> None:
    with serving(a=send(gzip.compress(BODY), Content_Encoding="gzip"), b=send(Content_Encoding="br")) as server:
        assert server.get("/a") == BODY
        assert fault(lambda: server.get("/b")).kind == "UnreadablePicture"


def test_the_environment_lends_neither_a_proxy_nor_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["Authorization"])
        send()(request)

    (tmp_path / ".netrc").write_text(f"machine pictures.example login me password {CANARY}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with nobody_may_call() as port, serving(a=answer) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert server.get("/a") == BODY
    assert asked == [None]


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    path = folder / f"{name}.pem"
    path.write_bytes(pem)
    return path


def test_https_is_held_to_the_name_and_never_left_for_http(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "pictures.example")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pem)
    ours = ssl.create_default_context(cafile=str(pem))
    with serving(tls=theirs, a=send(), down=redirect(f"http://pictures.example/?s={CANARY}")) as server:
        source = server.source(trust=lambda: ours)

        def get(path: str, host: str = "pictures.example") -> bytes:
            return source.get(server.url(path, host, "https"), max_bytes=1000)

        assert get("/a") == BODY
        assert "certificate is not accepted" in fault(lambda: get("/a", "other.example")).message
        error = fault(lambda: get("/down"))
        assert error.kind == "ForbiddenSource" and "from https to http://pictures.example/" in error.message


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),  # a public address behind NAT64
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.100.100.200", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:a9fe:a9fe::1", False),
        ("2001:0:a9fe:a9fe::1", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("fe80::1%lo", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
    ],
)
def test_only_public_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.1", "127.1", "0", "[::ffff:127.0.0.1]", "[::]"]
)
def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    with nobody_may_call() as port:
        error = fault(lambda: HttpSource(deadline_s=5).get(f"http://{host}:{port}/?sig={CANARY}", max_bytes=10))
    assert error.kind == "ForbiddenSource" and "not a public address" in error.message


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "192.0.0.192",
        "168.63.129.16",
        "100.100.100.200",
        "[::ffff:169.254.169.254]",
        "[::ffff:100.100.100.200]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[2002:c000:c0::1]",
        "[2001:0:a9fe:a9fe::1]",
        "[::1]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
    ],
)
def test_metadata_services_and_private_literals_are_never_connected_to(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", no_network)
    error = fault(lambda: HttpSource(deadline_s=5).get(f"http://{host}/latest/meta-data", max_bytes=10))
    assert error.kind == "ForbiddenSource"


def test_a_host_with_one_private_address_among_public_ones_is_refused() -> None:
    with nobody_may_call() as port:
        source = HttpSource(deadline_s=5, resolve=to("93.184.215.14", "127.0.0.1"))
        error = fault(lambda: source.get(f"http://mixed.example:{port}/", max_bytes=10))
    assert error.kind == "ForbiddenSource"


def only_names(*hosts: str) -> dict[str, object]:
    """`hosts` stand for public hosts, at 127.0.0.2; every other name is at 127.0.0.1, which is not permitted."""
    return {
        "resolve": lambda host, port: ["127.0.0.2"] if host in hosts else ["127.0.0.1"],
        "permits": lambda address: str(address) == "127.0.0.2",
    }


def test_a_public_address_that_redirects_to_a_private_one_is_blocked_at_the_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda place, left: dialled(("127.0.0.1", place[1]), left))
    with nobody_may_call() as port, serving(a=redirect(f"http://inside.example:{port}/?s={CANARY}")) as server:
        error = fault(lambda: server.get("/a", **only_names("pictures.example")))
        assert error.kind == "ForbiddenSource" and f"inside.example:{port}/ is at 127.0.0.1" in error.message
        assert len(server.seen) == 1


def test_a_name_that_resolves_to_another_address_later_is_dialled_where_it_was_checked() -> None:
    answers = iter(["127.0.0.1", "10.0.0.1", "10.0.0.1"])
    with serving(a=send()) as server:
        got = server.get(
            "/a", resolve=lambda host, port: [next(answers)], permits=lambda address: str(address) == "127.0.0.1"
        )
        assert got == BODY
        assert next(answers) == "10.0.0.1", "it was resolved once only"


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{CANARY}@pictures.example/x.png",
        f"http://user:p@ss{CANARY}@pictures.example/x.png",
        "http:/one-slash",
        "http://",
        "http://:80/",
        "http://[::1/",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        "http://pictures.example:99999/",
        f"http://pictures.example:port/?s={CANARY}",
    ],
)
def test_addresses_with_a_password_or_without_a_host_are_refused(url: str) -> None:
    source = HttpSource(deadline_s=5, resolve=to("10.0.0.1"))
    assert fault(lambda: source.get(url, max_bytes=10)).kind == "ForbiddenSource"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://pictures.example/x", "data:,x", "http://[", ""])
def test_a_redirect_to_anything_but_the_web_is_refused(location: str) -> None:
    with serving(a=redirect(location)) as server:
        assert fault(lambda: server.get("/a")).kind in {"ForbiddenSource", "UnreadablePicture"}


# --- what is given up ------------------------------------------------------------------------------------------------


def drip(request: BaseHTTPRequestHandler) -> None:
    send(b"", Content_Length="1000000")(request)
    _forever(request, b"x")


def drip_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    _forever(request, b"x")


def _forever(request: BaseHTTPRequestHandler, piece: bytes) -> None:
    while not stopped.wait(0.005):
        request.wfile.write(piece)


stopped = threading.Event()


@pytest.mark.parametrize("answer", [drip, drip_headers], ids=["body", "headers"])
def test_a_dripping_answer_is_given_up_at_the_deadline(answer: Answer) -> None:
    stopped.clear()
    with serving(a=answer) as server:
        error = fault(lambda: server.get(f"/a?s={CANARY}", max_bytes=10**9, deadline_s=0.2))
        stopped.set()
        assert error.kind == "SourceUnavailable" and "longer than 0.2 s" in error.message
        assert len(server.seen) == 1


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:  # until the client leaves
        request.wfile.write(b"x" * 2**16)


def test_an_endless_body_ends_at_the_byte_limit() -> None:
    with serving(a=endless, b=send(b"x" * 1001), c=send(b"x" * 1000)) as server:
        for path in ("/a", "/b"):
            error = fault(lambda path=path: server.get(path))
            assert error.kind == "PictureTooLarge" and "1,000" in error.message
        assert len(server.get("/c")) == 1000


def test_a_gzip_bomb_is_counted_unpacked_and_in_bounded_memory() -> None:
    import tracemalloc

    bomb = gzip.compress(bytes(60 * 2**20), compresslevel=1)
    with serving(a=send(bomb, Content_Encoding="gzip")) as server:
        tracemalloc.start()
        error = fault(lambda: server.get("/a", max_bytes=2 * 2**20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert error.kind == "PictureTooLarge"
    assert peak < 20 * 2**20, "it unpacks to 60 MiB"


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (404, "MissingPicture", 1),
        (410, "MissingPicture", 1),
        (403, "AccessDenied", 1),
        (401, "AccessDenied", 1),
        (400, "UnreadablePicture", 1),
        (204, "UnreadablePicture", 1),
        (429, "SourceUnavailable", 3),
        (503, "SourceUnavailable", 3),
    ],
)
def test_each_status_is_its_own_fault_and_only_passing_ones_are_tried_again(
    status: int, kind: str, requests: int
) -> None:
    with serving(a=send(b"", status)) as server:
        error = fault(lambda: server.get(f"/a?s={CANARY}"))
        assert (error.kind, len(server.seen)) == (kind, requests)
        assert f"answered {status}" in error.message


def failing_once(first: Answer) -> Answer:
    answers = iter([first])
    return lambda request: next(answers, send())(request)


def cut(request: BaseHTTPRequestHandler) -> None:
    send(b"half", Content_Length="1000")(request)


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("first", [send(b"", 500), cut, hang_up], ids=["500", "cut", "hung up"])
def test_a_passing_fault_is_outlived(first: Answer) -> None:
    with serving(a=failing_once(first)) as server:
        assert server.get("/a") == BODY
        assert len(server.seen) == 2


def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for() -> None:
    with serving(a=send(b"", 429, Retry_After="3600")) as server:
        assert fault(lambda: server.get("/a")).kind == "SourceUnavailable"
        assert len(server.seen) == 1


def test_a_name_nobody_knows_and_a_port_nobody_listens_at_are_unavailable() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with serving() as server:
        assert "cannot be found" in fault(lambda: server.get("/a", resolve=unknown)).message
    assert fault(lambda: server.get("/a")).kind == "SourceUnavailable"


# --- in a job ------------------------------------------------------------------------------------------------------


def test_the_web_is_refused_unless_the_job_allows_it(tmp_path: Path) -> None:
    limits = ImageLimits(max_px=100, max_bytes=100)
    with nobody_may_call() as port:
        error = fault(
            lambda: fetch(
                f"http://127.0.0.1:{port}/", root="", storage=Storage(), limits=limits, allow_outside_root=False
            )
        )
    assert error.kind == "ForbiddenSource" and "input.allow_http" in error.remedy


def test_signatures_of_fetched_and_refused_pictures_are_nowhere_in_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    picture = buffer.getvalue()
    monkeypatch.setattr(
        "unipic.pipeline.stages.prepare.HttpSource",
        lambda deadline_s: HttpSource(
            deadline_s=deadline_s, resolve=to("127.0.0.1"), permits=lambda _: True, backoff_s=0.001
        ),
    )
    with serving(good=send(picture), bad=send(b"", 500)) as server:
        signed = [server.url(f"/{path}?X-Amz-Signature={CANARY}") for path in ("good", "bad")]
        structs = [{"bytes": None, "path": url, "note": [url]} for url in signed]
        write_prompts(tmp_path / "manifest" / "a.parquet", ["p", "q"], image=signed, struct=structs, other=signed)
        columns = {"prompt": "prompt", "image": "image"}
        job = make_job(
            tmp_path, "edit", input__columns=columns, input__allow_http=True, input__keep=["struct", "other"]
        )
        run_here(job)
    for name, data in part_bytes(job).items():
        assert CANARY.encode() not in data, name
    (row,), (rejected,) = all_rows(job), all_rows(job, "rejected")
    assert row["source"] == row["other"] == row["struct"]["path"] == server.url("/good")
    assert CANARY not in str([row, rejected]) and rejected["struct"]["note"] == [server.url("/bad")]
    assert rejected["rejection"]["kind"] == "SourceUnavailable"
