"""Loopback servers that answer as no good store does: late, by the byte, with pages, without headers."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>nginx</body></html>"
Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def endpoint(*answers: Answer) -> Iterator[str]:
    """A server whose connections get these answers in turn, the last of them for ever; each may keep talking."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = [listener]
    left = list(answers)

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            while request := read_request(connection):
                (left.pop(0) if len(left) > 1 else left[0])(connection, request)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_ones.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in open_ones:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def read_request(connection: socket.socket) -> bytes:
    """The request's head, and what came of its body with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            return b""
        head += piece
    return head


def says(status: str, body: bytes = b"", **headers: str) -> Answer:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]

    def answer(connection: socket.socket, request: bytes) -> None:
        if b"100-continue" in request:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", request)
        left = int(length[1]) - len(request.partition(b"\r\n\r\n")[2]) if length else 0
        while left > 0:
            left -= len(connection.recv(65536))
        sent = b"" if request.startswith(b"PUT") and body != PAGE else body
        sizes = [] if "Transfer_Encoding" in headers else [f"Content-Length: {len(sent)}"]
        head = "\r\n".join([*lines, *sizes, "", ""]).encode()
        connection.sendall(head if request.startswith(b"HEAD") else head + sent)

    return answer


def silent(connection: socket.socket, request: bytes) -> None:
    """Never answers, and keeps the connection."""


def dripping(head: bytes) -> Answer:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        with suppress(OSError):
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    return answer
