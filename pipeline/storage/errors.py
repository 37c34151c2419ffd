"""What the operating system, botocore and aiohttp say, as errors of this project."""

from __future__ import annotations

import errno
from http.client import HTTPException
from typing import Any

from unipic.pipeline.errors import (
    AccessDenied,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UniPicError,
)

_MISSING = {errno.ENOENT, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ENFILE,
    errno.EMFILE,
}
_SET = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.anonymous for a public bucket."
_RENEW = "Renew the credentials in the environment or the AWS files, then run again."
_CREDENTIALS_CODES = {
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
_PASSING_CODES = {
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
_MISSING_CODES = {"NoSuchKey", "NoSuchVersion", "NotFound"}
_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "XMinioAdminBucketQuotaExceeded"}


class ConditionFailed(StorageError):
    """The condition of a request does not hold: there is an object, or another version of it."""


class RequestUnsupported(StorageError):
    """The store does not know this kind of request."""


class TooManyBytes(StorageError):
    """The object is larger than the reader allows."""


def too_many_bytes(uri: str, size_bytes: int, max_bytes: int) -> TooManyBytes:
    return TooManyBytes(f"{uri} has {size_bytes:,} bytes, more than the {max_bytes:,} allowed.")


def unreadable_answer(uri: str) -> StorageError:
    return StorageError(
        f"The store's answer about {uri} is none of S3: a name, a size or a time in it is missing or cannot be read.",
        remedy="Check storage.endpoint_url (--endpoint-url).",
    )


def not_an_endpoint(endpoint_url: str, what: str) -> StorageError:
    """For answers that no S3 store gives."""
    return StorageError(
        f"{endpoint_url} is not an S3 endpoint: it answered with {what}.",
        remedy="Check storage.endpoint_url (--endpoint-url).",
    )


def redirected(asked: str, to: str) -> StorageError:
    """For an answer that comes from, or sends to, another place than the one that was asked."""
    where = f" to {to}" if to else ""
    return StorageError(
        f"The store redirects {asked}{where}.",
        remedy="Set storage.endpoint_url and storage.region to where the bucket is.",
    )


def credentials_at_fault(error: UniPicError) -> bool:
    """Whether the credentials themselves are missing, expired or wrong: no other object would be readable either."""
    return error.remedy in {_RENEW, _SET}


def from_system(error: OSError, path: str) -> StorageError:
    """This project's error for one of the operating system's."""
    reason = error.strerror or type(error).__name__
    if error.errno in _MISSING:
        return ObjectMissing(f"There is nothing at {path}.")
    if error.errno in _DENIED:
        return AccessDenied(f"Access to {path} was denied: {reason}.", remedy="Check the file's owner and mode.")
    if error.errno in _FULL:
        return StorageFull(f"No space is left for {path}: {reason}.", remedy="Free some space, then run again.")
    if error.errno in _PASSING:
        return StorageUnavailable(f"{path} could not be reached: {reason}.")
    return StorageError(f"{path} could not be used: {reason}.")


def from_system_write(error: OSError, path: str, in_the_way: str | None) -> StorageError:
    """`from_system` of a write, to which nothing need be there before.

    Args:
        in_the_way: a file where a folder above `path` has to be, if there is one.
    """
    if in_the_way is not None:
        remedy = "Choose a folder that is one or can be made, or move that file away."
        return StorageError(f"{in_the_way} is a file, not a folder.", remedy=remedy)
    if error.errno in _MISSING:
        return StorageError(f"No file or folder can be made at {path}.", remedy="Choose another folder.")
    return from_system(error, path)


def from_request(error: BaseException, uri: str) -> StorageError | None:
    """This project's error for one of botocore's, aiohttp's or the socket's; None for one that is not about storage."""
    import aiohttp
    from botocore import exceptions as boto

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, boto.ClientError):
            return _answer_error(cause.response, uri)
        cause = cause.__cause__
    if isinstance(error, boto.HTTPClientError) and isinstance(inner := error.kwargs.get("error"), Exception):
        if isinstance(inner, aiohttp.TooManyRedirects):
            return redirected(uri, "")
        if isinstance(inner, aiohttp.ClientResponseError):
            return StorageUnavailable(f"{uri} could not be reached: the answer is not HTTP.")
    if isinstance(error, boto.ParamValidationError):
        return StorageError(f"{uri} is not a valid address: {str(error).splitlines()[-1]}.")
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return AccessDenied(
            f"No complete credentials were found for {uri}.",
            remedy=_SET,
        )
    if isinstance(error, (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.UnauthorizedSSOTokenError)):
        return AccessDenied(f"Credentials for {uri} could not be obtained: {error}.", remedy=_RENEW)
    passing = (
        boto.HTTPClientError,
        boto.ConnectionError,
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
        return ConditionFailed(f"The condition on {uri} does not hold ({said}).")
    if code == "NotImplemented" or status == 501:
        return RequestUnsupported(f"The store does not know this kind of request for {uri} ({said}).")
    if code == "NoSuchBucket":
        return ObjectMissing(
            f"There is no bucket {uri.split('/')[2]} ({uri}).", remedy="Create it, or correct its name."
        )
    if 300 <= status < 400:
        return redirected(uri, answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("location", ""))
    if code in _MISSING_CODES or status == 404:
        return ObjectMissing(f"There is nothing at {uri}.")
    if code in _CREDENTIALS_CODES:
        return AccessDenied(f"The store refused the credentials for {uri} ({said}).", remedy=_RENEW)
    if code in _FULL_CODES or status == 507:
        return StorageFull(f"No space is left for {uri} ({said}).", remedy="Free some space, then run again.")
    if code in _PASSING_CODES or status in {408, 425, 429} or status >= 500:
        return StorageUnavailable(f"The store did not serve {uri} ({said}).")
    if status in {401, 403} or code == "AccessDenied":
        return AccessDenied(f"Access to {uri} was denied ({said}).", remedy="Check the bucket's policy for this user.")
    return StorageError(f"The store refused the request for {uri} ({said}).")
