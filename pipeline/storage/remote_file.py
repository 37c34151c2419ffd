"""A stored object as a seekable file whose reads are ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

READ_AHEAD_BYTES = 2**20
TAIL_BYTES = 2**16  # a Parquet footer of some hundred columns and row groups


class RemoteFile(io.RawIOBase):
    """An object as a seekable file, for pyarrow: reads are ranges, each at least READ_AHEAD_BYTES.

    Args:
        read_range: (first byte, count) → those bytes.
        size_bytes: of the object.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size_bytes: int) -> None:
        super().__init__()
        self._read_range, self._size_bytes = read_range, size_bytes
        self._at = 0
        self._held, self._held_from = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size_bytes - self._at)
        count = left if size is None or size < 0 else min(size, left)
        data = self._bytes(count) if count else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _bytes(self, count: int) -> bytes:
        start = self._at - self._held_from
        if start < 0 or start + count > len(self._held):
            tail_from = max(0, self._size_bytes - TAIL_BYTES)
            first = tail_from if self._at >= tail_from else self._at
            end = min(self._size_bytes, max(self._at + count, first + READ_AHEAD_BYTES))
            self._held, self._held_from = self._read_range(first, end - first), first
            start = self._at - first
        data = self._held[start : start + count]
        if count >= READ_AHEAD_BYTES:  # a big read is not held twice
            self._held, self._held_from = b"", 0
        return data
