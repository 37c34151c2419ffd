"""S3 behind `Storage`: one request a call, each with a deadline, errors named; `Storage` does the retrying."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED

from unipic.pipeline.errors import AccessDenied, ObjectMissing, StorageError, StorageUnavailable
from unipic.pipeline.storage.answers import MODIFIED, Contact, checked_session, read_body, version_of
from unipic.pipeline.storage.errors import ConditionFailed, from_request, unreadable_answer
from unipic.pipeline.storage.event_loop import EventLoop
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.waiting import MIN_BYTES_PER_S, Waiting

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
"""For one request, and MIN_BYTES_PER_S for its body."""
MAX_CONNECTIONS = 64
MULTIPART_BYTES = 128 * 2**20
MULTIPART_AT_ONCE = 4

Facts = tuple[str, int, str]
"""URI, size in bytes, version."""


class S3:
    """A connection to one S3 endpoint, made in the process that uses it.

    Threads may share it: requests run on an event loop of its own.
    """

    def __init__(self, options: StorageOptions, waiting: Waiting, requests: Counter[str]) -> None:
        self._contact = Contact(requests)
        self._loop = EventLoop()
        self._client: Any = self._run("s3://", lambda: self._connect(options), waiting)

    @property
    def answered(self) -> bool:
        """Whether this endpoint has ever answered as S3 does."""
        return self._contact.answered

    def lists_in_order(self, uri: str) -> bool:
        """Whether listings come sorted: of the stores there are, only AWS's usual buckets are known to."""
        host = urlsplit(self._client.meta.endpoint_url).hostname or ""
        return "amazonaws.com" in host and not split(uri)[0].endswith("--x-s3")

    def get(self, uri: str, max_bytes: int | None, waiting: Waiting) -> tuple[bytes, str]:
        """The object's bytes and its version."""

        async def body() -> tuple[bytes, str]:
            async with self._deadline(f"GET {uri}", waiting) as limit:
                answer = await self._client.get_object(**_address(uri))
                size_bytes = answer.get("ContentLength")
                return await read_body(answer, uri, limit, max_bytes=max_bytes, size_bytes=size_bytes), version_of(
                    answer
                )

        return self._run(uri, body, waiting)

    def get_range(self, uri: str, start: int, *, size_bytes: int, version: str, waiting: Waiting) -> bytes:
        condition = {"IfMatch": f'"{version}"'} if version and not version.startswith(MODIFIED) else {}

        async def body() -> bytes:
            async with self._deadline(f"GET {uri}", waiting) as limit:
                wanted = f"bytes={start}-{start + size_bytes - 1}"
                answer = await self._client.get_object(**_address(uri), Range=wanted, **condition)
                if answer["ResponseMetadata"]["HTTPStatusCode"] == 200 and answer.get("ContentLength") != size_bytes:
                    answer["Body"].close()
                    raise StorageError(f"The store ignores byte ranges and sends all of {uri} each time.")
                return await read_body(answer, uri, limit, max_bytes=size_bytes, size_bytes=answer.get("ContentLength"))

        try:
            data = self._run(uri, body, waiting)
        except ConditionFailed as error:
            raise StorageError(f"{uri} changed while it was read.", remedy="Run again.") from error
        if len(data) != size_bytes:
            raise StorageUnavailable(f"{uri} gave {len(data):,} bytes where {size_bytes:,} were asked for.")
        return data

    def put(self, uri: str, data: bytes, waiting: Waiting, *, condition: dict[str, str] | None = None) -> str:
        """The new object's version ("" where the store gives none).

        Args:
            condition: of the store's own: `IfNoneMatch` or `IfMatch`.

        Raises:
            ConditionFailed: the condition does not hold, and the store honours it.
        """

        async def body() -> str:
            if len(data) > MULTIPART_BYTES and condition is None:
                return await self._put_in_parts(uri, data, waiting)
            async with self._deadline(f"PUT {uri}", waiting, upload_bytes=len(data)):
                return version_of(await self._client.put_object(**_address(uri), Body=data, **(condition or {})))

        return self._run(uri, body, waiting)

    def head(self, uri: str, waiting: Waiting) -> tuple[int, str]:
        try:
            answer = self._call(uri, "HEAD", lambda: self._client.head_object(**_address(uri)), waiting)
        except (ObjectMissing, AccessDenied):
            if not self._contact.is_remote:  # a web server says 403 and 404, too; only the page behind it tells
                self.get(uri, None, waiting)
            raise
        if answer.get("ContentLength") is None:
            raise StorageError(f"The store does not say how large {uri} is: its answer has no Content-Length.")
        return int(answer["ContentLength"]), version_of(answer)

    def copy(self, source: str, target: str, waiting: Waiting) -> None:
        """Inside the store: no byte passes this machine."""
        where = _address(source)
        self._call(source, "COPY", lambda: self._client.copy_object(**_address(target), CopySource=where), waiting)

    def delete(self, uri: str, waiting: Waiting) -> None:
        self._call(uri, "DELETE", lambda: self._client.delete_object(**_address(uri)), waiting)

    def delete_all(self, uris: Sequence[str], waiting: Waiting) -> list[str]:
        """Delete objects of one bucket in one request; those that the store says it did not delete."""
        bucket = split(uris[0])[0]
        wanted = {"Objects": [{"Key": split(uri)[1]} for uri in uris], "Quiet": True}
        answer = self._call(
            uris[0], "DELETE", lambda: self._client.delete_objects(Bucket=bucket, Delete=wanted), waiting
        )
        return [f"s3://{bucket}/{one['Key']}" for one in answer.get("Errors", ())]

    def page(
        self, folder_uri: str, waiting: Waiting, *, recursive: bool, token: str, start_after: str, prefix: str
    ) -> tuple[list[Facts], str]:
        """Up to 1000 objects below a folder, and the token of the next page or "".

        Args:
            start_after: the URI behind which the listing begins, or "".
            prefix: what names in the folder begin with.
        """
        bucket, key = split(folder_uri)
        asked = {"Bucket": bucket, "Prefix": (f"{key.rstrip('/')}/" if key.rstrip("/") else "") + prefix}
        if not recursive:
            asked["Delimiter"] = "/"
        if token:
            asked["ContinuationToken"] = token
        elif start_after:
            asked["StartAfter"] = split(start_after)[1]
        answer = self._call(folder_uri, "LIST", lambda: self._client.list_objects_v2(**asked), waiting)
        contents = answer.get("Contents", ())
        if any(not item.get("Key") or item.get("Size", 0) < 0 for item in contents):
            raise unreadable_answer(folder_uri)
        found = [
            (f"s3://{bucket}/{item['Key']}", int(item.get("Size", 0)), version_of(item))
            for item in contents
            if not item["Key"].endswith("/")
        ]
        following = answer.get("NextContinuationToken", "")
        if answer.get("IsTruncated") and (not following or following == token):
            raise StorageError(f"The store breaks off the listing of {folder_uri} and does not say how it goes on.")
        return found, following if answer.get("IsTruncated") else ""

    def _call(self, uri: str, verb: str, make: Callable[[], Awaitable[Any]], waiting: Waiting) -> Any:
        async def body() -> Any:
            async with self._deadline(f"{verb} {uri}", waiting):
                return await make()

        return self._run(uri, body, waiting)

    def _run(self, uri: str, make: Callable[[], Any], waiting: Waiting) -> Any:
        try:
            return self._loop.run(make, waiting)
        except StorageError:
            raise
        except ValueError as error:  # botocore's, for a number or a time that is none
            raise unreadable_answer(uri) from error
        except Exception as error:  # whatever comes from below gets a name of ours, or is raised as it is
            mapped = from_request(error, uri)
            if mapped is None:
                raise
            raise mapped from error

    async def _connect(self, options: StorageOptions) -> Any:
        # Our retries are in charge: one attempt here, and none inside botocore.
        config: dict[str, Any] = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": REQUEST_TIMEOUT_S,
            "max_pool_connections": MAX_CONNECTIONS,
            "http_session_cls": checked_session(self._contact),
        }
        if options.endpoint_url is not None:  # many stores that are not AWS reject the newer checksum headers
            config |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        if options.anonymous:
            config["signature_version"] = UNSIGNED
        creating = get_session().create_client(
            "s3", endpoint_url=options.endpoint_url, region_name=options.region, config=AioConfig(**config)
        )
        return await self._loop.resources.enter_async_context(creating)

    @asynccontextmanager
    async def _deadline(self, what: str, waiting: Waiting, *, upload_bytes: int = 0) -> AsyncIterator[asyncio.Timeout]:
        """Raises StorageUnavailable where the time for one request is over."""
        allowed_s = min(REQUEST_TIMEOUT_S + upload_bytes / MIN_BYTES_PER_S, waiting.left_s)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(allowed_s) as limit:
                yield limit
        except TimeoutError as error:
            if not limit.expired():
                raise
            host, spent_s = self._client.meta.endpoint_url, time.monotonic() - began_s
            raise StorageUnavailable(f"{host} did not complete {what} within {spent_s:.0f} s") from error

    async def _put_in_parts(self, uri: str, data: bytes, waiting: Waiting) -> str:
        step = MULTIPART_BYTES // 4
        made = await self._client.create_multipart_upload(**_address(uri))
        upload = {**_address(uri), "UploadId": made["UploadId"]}
        turn = asyncio.Semaphore(MULTIPART_AT_ONCE)

        async def part(number: int) -> dict[str, Any]:
            piece = data[(number - 1) * step : number * step]
            async with turn, self._deadline(f"PUT {uri}", waiting, upload_bytes=MULTIPART_AT_ONCE * len(piece)):
                answer = await self._client.upload_part(**upload, PartNumber=number, Body=piece)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(part(number + 1)) for number in range(-(-len(data) // step))]
            listed = {"Parts": [task.result() for task in parts]}
            async with self._deadline(f"PUT {uri}", waiting):
                return version_of(await self._client.complete_multipart_upload(**upload, MultipartUpload=listed))
        except BaseException as error:
            with suppress(Exception):  # the first error is the one to report
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._client.abort_multipart_upload(**upload)
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None


def split(uri: str) -> tuple[str, str]:
    """("bucket", "key/of/it") of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{uri} names no bucket.", remedy="Write s3://bucket/path.")
    return bucket, key


def _address(uri: str) -> dict[str, str]:
    bucket, key = split(uri)
    return {"Bucket": bucket, "Key": key}
