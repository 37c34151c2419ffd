"""A small HTTP proxy in front of an S3 server that does to requests what networks and stores do.

Which request is struck, and by what, is drawn from a seed; the request goes on byte for byte (the Host header
included, so that signatures hold) or is answered here.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

CODES = {
    "503 SlowDown": (503, "SlowDown"),
    "500 InternalError": (500, "InternalError"),
    "429 TooManyRequests": (429, "TooManyRequests"),
    "403 ExpiredToken": (403, "ExpiredToken"),
}
PASSING = (
    "503 SlowDown",
    "500 InternalError",
    "429 TooManyRequests",
    "connection reset",
    "answer lost",
    "slow body",
    "body cut short",
    "upload cut short",
)
SLOW_S = 0.3
READY_S = 30
_HOP = {"transfer-encoding", "connection", "keep-alive", "content-length", "date", "server"}


@dataclass
class Weather:
    """What strikes requests: what `orders` say, first come first served; else faults drawn at `rate`.

    Attributes:
        tally: how often each fault struck.
        asked: "METHOD path" of every request, as it came.
    """

    seed: int = 0
    rate: float = 0.0
    orders: list[str] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def strikes(self, method: str) -> str:
        if self.orders:
            fault = self.orders.pop(0)
        elif self._dice.random() < self.rate:
            fault = self._dice.choice(PASSING)
        else:
            return ""
        if fault == "upload cut short" and method != "PUT":
            fault = "connection reset"
        if fault in ("body cut short", "slow body") and method != "GET":
            fault = "answer lost"
        if fault:
            self.tally[fault] += 1
        return fault


@dataclass(frozen=True)
class Proxy:
    endpoint_url: str
    weather: Weather


@contextmanager
def proxy(upstream_url: str, weather: Weather) -> Iterator[Proxy]:
    """Serve on a free loopback port, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = _Served(upstream_url, weather)
    port = asyncio.run_coroutine_threadsafe(served.start(), loop).result(READY_S)
    try:
        yield Proxy(f"http://127.0.0.1:{port}", weather)
    finally:
        asyncio.run_coroutine_threadsafe(served.stop(), loop).result(READY_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(READY_S)
        loop.close()


class _Served:
    def __init__(self, upstream_url: str, weather: Weather) -> None:
        self.upstream_url, self.weather = upstream_url, weather

    async def start(self) -> int:
        self.session = ClientSession(
            connector=TCPConnector(limit=0),
            timeout=ClientTimeout(total=None),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self.handle)
        self.runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return int(self.runner.addresses[0][1])

    async def stop(self) -> None:
        await self.runner.cleanup()
        await self.session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.weather.asked.append(f"{request.method} {request.path}")
        fault = self.weather.strikes(request.method)
        if fault in CODES:
            await request.read()
            status, code = CODES[fault]
            return web.Response(status=status, text=_error(code), content_type="application/xml")
        if fault == "connection reset":
            return _cut(request)
        try:
            data = await request.read()
        except ConnectionError:  # the client was killed while it sent
            return _cut(request)
        if fault == "upload cut short":
            await self._half_an_upload(request, data)
            return _cut(request)
        url = URL(self.upstream_url + request.raw_path, encoded=True)
        async with self.session.request(
            request.method, url, headers=_passed_on(request), data=data or None, allow_redirects=False
        ) as answer:
            body = await answer.read()
            if fault == "answer lost":
                return _cut(request)
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                headers["Content-Length"] = answer.headers["Content-Length"]
            if fault in ("slow body", "body cut short"):
                return await _haltingly(request, web.StreamResponse(status=answer.status, headers=headers), body, fault)
            return web.Response(status=answer.status, headers=headers, body=body or None)

    async def _half_an_upload(self, request: web.Request, data: bytes) -> None:
        """Tell the server of the whole body, send half of it and hang up."""
        upstream = URL(self.upstream_url)
        _, writer = await asyncio.open_connection(upstream.host, upstream.port)
        head = [f"{request.method} {request.raw_path} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in _passed_on(request).items()]
        head.append(f"Content-Length: {len(data)}")
        writer.write("\r\n".join([*head, "", ""]).encode() + data[: len(data) // 2])
        await writer.drain()
        writer.close()


def _passed_on(request: web.Request) -> dict[str, str]:
    dropped = {"connection", "transfer-encoding", "content-length", "expect"}
    return {name: value for name, value in request.headers.items() if name.lower() not in dropped}


def _cut(request: web.Request) -> web.Response:
    """Hang up without a word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _haltingly(request: web.Request, answer: web.StreamResponse, body: bytes, fault: str) -> web.StreamResponse:
    answer.content_length = len(body)
    await answer.prepare(request)
    await answer.write(body[: len(body) // 2])
    if fault == "body cut short":
        _cut(request)
        return answer
    await asyncio.sleep(SLOW_S)
    await answer.write(body[len(body) // 2 :])
    await answer.write_eof()
    return answer


def _error(code: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>as ordered</Message></Error>'
