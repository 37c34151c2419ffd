"""Images from the web, for jobs that allow it: public addresses only, few redirects, bounded bytes and time.

A name is resolved once, every address it has is checked, and the connection goes to an address that was checked: a
name that answers differently a moment later changes nothing. Neither proxies nor credentials are taken from the
environment. What an address holds behind its path may be a signature and is in no message.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from unipic.pipeline.errors import RejectionKind, RowError, redact_address
from unipic.pipeline.images.addresses import Address, is_public, system_addresses

ATTEMPTS = 3
MAX_REDIRECTS = 5
CONNECT_S = 10.0
CHUNK_BYTES = 2**16
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_GONE = {404, 410}
_DENIED = {401, 403, 407, 451}
_BUSY = {408, 425, 429}
_AS_IS = "%/:@!$&'()*+,;=~"  # in a path: what is quoted already stays so


@lru_cache(maxsize=1)
def system_trust() -> ssl.SSLContext:
    """The certificate authorities this machine trusts."""
    return ssl.create_default_context()


@dataclass(frozen=True)
class HttpSource:
    """How images are fetched from the web.

    Attributes:
        deadline_s: of one image: attempts, redirects and body together. A name's lookup keeps the system's own limits.
        resolve: (host, port) → addresses.
        permits: whether an address may be connected to.
        trust: what https certificates are checked with.
        backoff_s: wait before the second attempt; it doubles.
    """

    deadline_s: float
    resolve: Callable[[str, int], list[str]] = system_addresses
    permits: Callable[[Address], bool] = is_public
    trust: Callable[[], ssl.SSLContext] = system_trust
    backoff_s: float = 0.5

    def get(self, url: str, *, max_bytes: int) -> bytes:
        """The picture at `url`, an http(s) address.

        Raises:
            RowError: ForbiddenSource (no connection was made to it), MissingPicture, AccessDenied, PictureTooLarge
                (`max_bytes` counts decompressed bytes), UnreadablePicture, SourceUnavailable (after every attempt).
        """
        ends = time.monotonic() + self.deadline_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._follow(url, max_bytes=max_bytes, ends=ends)
            except _Passing as fault:
                wait_s = max(self.backoff_s * 2 ** (attempt - 1), fault.wait_s)
                if attempt == ATTEMPTS or time.monotonic() + wait_s >= ends:
                    raise _unavailable(f"{redact_address(url)} {fault} (tries: {attempt}).") from fault
            except TimeoutError as error:
                raise _unavailable(f"{redact_address(url)} took longer than {self.deadline_s:g} s.") from error
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, url: str, *, max_bytes: int, ends: float) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            target = _parse(url)
            with self._answer(target, ends) as response:
                if response.status not in _REDIRECTS:
                    _check_status(response, target.shown)
                    return _body(response, target.shown, max_bytes)
                url = _hop(target, url, response.getheader("Location"))
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE, f"{target.shown} is the redirect number {MAX_REDIRECTS + 1} of its picture."
        )

    @contextmanager
    def _answer(self, target: _Target, ends: float) -> Iterator[http.client.HTTPResponse]:
        """Asks `target`; its answer, the body not read yet."""
        try:
            with self._connected(target, ends) as plain:
                connection = http.client.HTTPConnection(target.host, target.port)
                connection.sock = _Timed(plain, ends)
                connection.putrequest("GET", target.path, skip_host=True, skip_accept_encoding=True)
                for name, value in target.headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                yield connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise _unavailable(f"{target.shown}: its certificate is not accepted: {error.verify_message}.") from error
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= ends:
                raise TimeoutError from error
            raise _Passing(f"broke off ({type(error).__name__})") from error

    @contextmanager
    def _connected(self, target: _Target, ends: float) -> Iterator[socket.socket]:
        """A connection to an address of `target` that was checked."""
        refused: OSError = OSError("it has no address")
        for address in self._checked(target):
            try:
                plain = socket.create_connection((address, target.port), _left(ends, CONNECT_S))
                break
            except OSError as error:
                refused = error
        else:
            raise refused
        with plain:
            if target.scheme == "http":
                yield plain
                return
            plain.settimeout(_left(ends))
            with self.trust().wrap_socket(plain, server_hostname=target.host) as wrapped:
                yield wrapped

    def _checked(self, target: _Target) -> list[str]:
        try:
            addresses = self.resolve(target.host, target.port)
        except socket.gaierror as error:
            raise _Passing(f"cannot be found: {error.strerror}") from error
        except (UnicodeError, ValueError) as error:
            raise RowError(RejectionKind.FORBIDDEN_SOURCE, f"{target.shown} names no host.") from error
        for address in addresses:
            if not self.permits(ipaddress.ip_address(address)):
                raise RowError(
                    RejectionKind.FORBIDDEN_SOURCE,
                    f"{target.shown} is at {address}, which is not a public address.",
                    remedy="Copy the pictures to a folder or a bucket, or put their bytes into the manifest.",
                )
        return addresses


@dataclass(frozen=True)
class _Target:
    """A web address taken apart; `path` with its query, `shown` without."""

    scheme: str
    host: str
    port: int
    path: str
    shown: str

    @property
    def headers(self) -> dict[str, str]:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {
            "Host": host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}",
            "User-Agent": "unipic-batch",
            "Accept": "image/*, */*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }


class _Passing(Exception):
    """Another attempt may succeed; the text goes on from the address."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class _Timed(io.RawIOBase):
    """A socket as `http.client` uses it, each single read and write of which ends by `ends`."""

    def __init__(self, plain: socket.socket, ends: float) -> None:
        self._plain = plain
        self._ends = ends

    def sendall(self, data: bytes) -> None:
        self._plain.settimeout(_left(self._ends))
        self._plain.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._plain, self._ends))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._plain.settimeout(_left(self._ends))
        return self._plain.recv_into(buffer)


def _parse(url: str) -> _Target:
    shown = redact_address(url)
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        if ":" not in host:
            host = host.encode("idna").decode("ascii")
        path = quote(parts.path or "/", safe=_AS_IS)
        if parts.query:
            path += f"?{quote(parts.query, safe=_AS_IS + '?')}"
    except ValueError as error:
        raise RowError(RejectionKind.FORBIDDEN_SOURCE, f"{shown} is no web address.") from error
    if scheme not in _PORTS or not host:
        raise RowError(RejectionKind.FORBIDDEN_SOURCE, f"{shown} is no http or https address with a host.")
    if "@" in parts.netloc:
        raise RowError(RejectionKind.FORBIDDEN_SOURCE, f"{shown} holds a user name or a password.")
    return _Target(scheme, host, port or _PORTS[scheme], path, shown)


def _hop(target: _Target, url: str, location: str | None) -> str:
    if not location:
        raise RowError(RejectionKind.UNREADABLE_PICTURE, f"{target.shown} redirects to nowhere.")
    try:
        following = urljoin(url, location)
    except ValueError as error:
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE, f"{target.shown} redirects to what is no web address."
        ) from error
    if target.scheme == "https" and not following.lower().startswith("https:"):
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE, f"{target.shown} redirects from https to {redact_address(following)}."
        )
    return following


def _check_status(response: http.client.HTTPResponse, shown: str) -> None:
    status = response.status
    if status == 200:
        return
    if status in _GONE:
        raise RowError(RejectionKind.MISSING_PICTURE, f"{shown} answered {status}: there is no picture.")
    if status in _DENIED:
        raise RowError(RejectionKind.ACCESS_DENIED, f"{shown} answered {status}: it is not ours to read.")
    if status in _BUSY or status >= 500:
        asked = response.getheader("Retry-After", "")
        raise _Passing(f"answered {status}", float(asked) if asked.isdecimal() else 0.0)
    raise RowError(RejectionKind.UNREADABLE_PICTURE, f"{shown} answered {status}, which brings no picture.")


def _body(response: http.client.HTTPResponse, shown: str, max_bytes: int) -> bytes:
    too_large = RowError(RejectionKind.PICTURE_TOO_LARGE, f"{shown} has more bytes than the limit of {max_bytes:,}.")
    if (response.length or 0) > max_bytes:
        raise too_large
    packed = response.getheader("Content-Encoding", "identity").strip().lower()
    if packed not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise RowError(
            RejectionKind.UNREADABLE_PICTURE, f"{shown} is sent with a content encoding that was not asked for."
        )
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed not in {"", "identity"} else None
    body = bytearray()
    while piece := response.read(CHUNK_BYTES):
        try:
            body += piece if unpack is None else unpack.decompress(piece, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise RowError(RejectionKind.UNREADABLE_PICTURE, f"{shown} is sent as {packed}, and is not.") from error
        if len(body) > max_bytes:
            raise too_large
    if response.length or (unpack is not None and not unpack.eof):
        raise _Passing("broke off in mid-picture")
    return bytes(body)


def _left(ends: float, most_s: float = float("inf")) -> float:
    left_s = ends - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return min(left_s, most_s)


def _unavailable(message: str) -> RowError:
    return RowError(RejectionKind.SOURCE_UNAVAILABLE, message, remedy="`unipic run … --retry-rejected` tries again.")
