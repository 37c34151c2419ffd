"""S3 behind `pipeline.storage`: one request a call, errors named; `Storage` does the retrying."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from http.client import HTTPException
from typing import Any

from pipeline.errors import AccessDenied, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from pipeline.job import StorageOptions

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
MAX_CONNECTIONS = 64
MULTIPART_BYTES = 128 * 2**20
READ_AHEAD_BYTES = 2**20
TAIL_BYTES = 2**16  # a Parquet footer of some hundred columns and row groups

REMEDY_CREDENTIALS = "Renew the credentials in the environment or the AWS files, then run again."
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestExpired",
    "InvalidToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
}
_PASSING = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}
_MISSING = {"NoSuchKey", "NoSuchVersion", "NotFound"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "XMinioAdminBucketQuotaExceeded"}


class AlreadyThere(StorageError):
    """A conditional put found an object under its name."""


class NotImplementedThere(StorageError):
    """The store does not know this kind of request."""


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
                    raise StorageError(f"{uri} has {size_bytes:,} bytes, more than the {max_bytes:,} allowed.")
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
            mapped = storage_error(error, uri)
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


def storage_error(error: BaseException, uri: str) -> StorageError | None:
    """The house's error for one of botocore's, aiohttp's or the socket's; None for one that is not about storage."""
    import aiohttp
    from botocore import exceptions as boto  # type: ignore[import-untyped]

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, boto.ClientError):
            return _answer_error(cause.response, uri)
        cause = cause.__cause__
    if isinstance(error, boto.ParamValidationError):
        return StorageError(f"{uri} is not a valid address: {str(error).splitlines()[-1]}.")
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return AccessDenied(
            f"No complete credentials were found for {uri}.",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.anonymous for a public bucket.",
        )
    if isinstance(error, (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.UnauthorizedSSOTokenError)):
        return AccessDenied(f"Credentials for {uri} could not be had: {error}.", remedy=REMEDY_CREDENTIALS)
    passing = (
        boto.HTTPClientError,
        boto.ResponseStreamingError,
        boto.IncompleteReadError,
        boto.ChecksumError,
        aiohttp.ClientError,
        HTTPException,
        TimeoutError,
        ConnectionError,
    )
    if isinstance(error, passing) or type(error).__name__ == "ResponseParserError":
        return StorageUnavailable(f"{uri} could not be reached: {type(error).__name__}: {error}")
    if isinstance(error, (boto.BotoCoreError, OSError)):
        return StorageError(f"{uri} could not be used: {type(error).__name__}: {error}")
    return None


def _answer_error(answer: Any, uri: str) -> StorageError:
    fault = answer.get("Error", {})
    code, text = str(fault.get("Code", "")), str(fault.get("Message", "")).strip()
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{code}: {text}" if text else code
    if code in {"PreconditionFailed", "412"} or status == 412:
        return AlreadyThere(f"The condition on {uri} does not hold ({said}).")
    if code == "NotImplemented" or status == 501:
        return NotImplementedThere(f"The store does not know this kind of request for {uri} ({said}).")
    if code == "NoSuchBucket":
        return ObjectMissing(f"There is no bucket {split(uri)[0]} ({uri}).", remedy="Create it, or mend its name.")
    if code in _MISSING or status == 404:
        return ObjectMissing(f"There is nothing at {uri}.")
    if code in _CREDENTIALS:
        return AccessDenied(f"The store refused the credentials for {uri} ({said}).", remedy=REMEDY_CREDENTIALS)
    if code in _FULL or status == 507:
        return StorageFull(f"No space is left for {uri} ({said}).", remedy="Free some space, then run again.")
    if code in _PASSING or status in {408, 425, 429} or status >= 500:
        return StorageUnavailable(f"The store did not serve {uri} ({said}).")
    if status in {401, 403} or code == "AccessDenied":
        return AccessDenied(f"Access to {uri} was denied ({said}).", remedy="Check the bucket's policy for this user.")
    return StorageError(f"The store refused the request for {uri} ({said}).")
