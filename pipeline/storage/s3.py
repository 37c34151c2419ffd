"""S3 behind `Storage`: one request a call, errors named; `Storage` does the retrying."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from typing import Any

from unipic.pipeline.errors import StorageError, StorageUnavailable
from unipic.pipeline.storage.errors import from_request, too_many_bytes
from unipic.pipeline.storage.options import StorageOptions

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
MAX_CONNECTIONS = 64
MULTIPART_BYTES = 128 * 2**20
READ_AHEAD_BYTES = 2**20
TAIL_BYTES = 2**16  # a Parquet footer of some hundred columns and row groups


class S3:
    """A connection to one S3 endpoint, made in the process that uses it.

    Threads may share it: requests run on fsspec's own event loop.
    """

    def __init__(self, options: StorageOptions) -> None:
        import s3fs

        # Our retries are in charge: one try here, and none inside botocore.
        config: dict[str, Any] = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": MAX_CONNECTIONS,
        }
        if options.endpoint_url is not None:  # many stores that are not AWS reject the newer checksum headers
            config |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        self._fs = s3fs.S3FileSystem(
            anon=options.anonymous,
            endpoint_url=options.endpoint_url,
            client_kwargs={"region_name": options.region} if options.region else {},
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._fs.retries = 1

    def get(self, uri: str, max_bytes: int | None) -> bytes:
        async def body() -> bytes:
            answer = await self._fs._call_s3("get_object", **_address(uri))
            try:
                size_bytes = int(answer["ContentLength"])
                if max_bytes is not None and size_bytes > max_bytes:
                    raise too_many_bytes(uri, size_bytes, max_bytes)
                return bytes(await answer["Body"].read())
            finally:
                answer["Body"].close()

        return self._run(uri, body)

    def get_range(self, uri: str, start: int, *, size_bytes: int, version: str) -> bytes:
        async def body() -> bytes:
            where = {"Range": f"bytes={start}-{start + size_bytes - 1}"}
            if version:
                where["IfMatch"] = version
            answer = await self._fs._call_s3("get_object", **_address(uri), **where)
            try:
                return bytes(await answer["Body"].read())
            finally:
                answer["Body"].close()

        data = self._run(uri, body)
        if len(data) != size_bytes:
            raise StorageUnavailable(f"{uri} gave {len(data):,} bytes where {size_bytes:,} were asked for.")
        return data

    def put(self, uri: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """Raises AlreadyThere, where `only_if_absent` and the store honours it."""
        if len(data) > MULTIPART_BYTES and not only_if_absent:
            path = uri.removeprefix("s3://")
            self._run(uri, lambda: self._fs._pipe_file(path, data, chunksize=MULTIPART_BYTES // 4))
            return
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        self._run(uri, lambda: self._fs._call_s3("put_object", **_address(uri), Body=data, **condition))

    def head(self, uri: str) -> tuple[int, str]:
        answer = self._run(uri, lambda: self._fs._call_s3("head_object", **_address(uri)))
        return int(answer["ContentLength"]), answer["ETag"].strip('"')

    def delete(self, uri: str) -> None:
        self._run(uri, lambda: self._fs._call_s3("delete_object", **_address(uri)))

    def page(self, folder_uri: str, *, recursive: bool, token: str) -> tuple[list[tuple[str, int, str]], str]:
        """Up to 1000 objects (uri, size, ETag) below a folder, and the token of the next page or ""."""
        bucket, key = split(folder_uri)
        prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        asked = {"Bucket": bucket, "Prefix": prefix}
        if not recursive:
            asked["Delimiter"] = "/"
        if token:
            asked["ContinuationToken"] = token
        answer = self._run(folder_uri, lambda: self._fs._call_s3("list_objects_v2", **asked))
        found = [
            (f"s3://{bucket}/{item['Key']}", int(item["Size"]), item.get("ETag", "").strip('"'))
            for item in answer.get("Contents", ())
            if not item["Key"].endswith("/")
        ]
        return found, answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else ""

    def _run(self, uri: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        from fsspec.asyn import sync

        try:
            return sync(self._fs.loop, call)
        except StorageError:
            raise
        except Exception as error:  # whatever comes from below gets the house's name, or is raised as it is
            mapped = from_request(error, uri)
            if mapped is None:
                raise
            raise mapped from error


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


def split(uri: str) -> tuple[str, str]:
    """("bucket", "key/of/it") of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{uri} names no bucket.", remedy="Write s3://bucket/path.")
    return bucket, key


def _address(uri: str) -> dict[str, str]:
    bucket, key = split(uri)
    return {"Bucket": bucket, "Key": key}
