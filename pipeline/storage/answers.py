"""What a store's answers are worth: where they came from, whether they are S3's, and their bodies in good time."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.httpsession import AIOHTTPSession

from unipic.pipeline.storage.errors import not_an_endpoint, redirected, too_many_bytes
from unipic.pipeline.storage.waiting import MIN_BYTES_PER_S

CHUNK_BYTES = 2**18
LIST_MARK = b"ListBucketResult"  # the root element of every listing
PAGE = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE)
MODIFIED = "modified "


@dataclass
class Contact:
    """What is known of an endpoint.

    Attributes:
        requests: counts those that are sent, by kind.
        answered: whether it ever did.
        is_remote: whether any answer was one that only S3 gives.
    """

    requests: Counter[str]
    answered: bool = False
    is_remote: bool = False


def checked_session(contact: Contact) -> type:
    """An HTTP session for botocore whose answers come from the host that was asked, and from S3 as far as one can tell.

    It looks at answers before botocore does: that makes errors of what it cannot parse, and empty folders of pages.
    """

    class CheckedSession(AIOHTTPSession):
        async def send(self, request: Any) -> Any:
            contact.requests[_kind(request)] += 1
            answer = await super().send(request)
            asked, came = urlsplit(request.url), urlsplit(answer.url)
            if (asked.scheme, asked.netloc) != (came.scheme, came.netloc):
                raise redirected(request.url, answer.url)
            body = b"" if request.stream_output and answer.status_code < 300 else await answer.content
            headers = {name.lower(): value for name, value in answer.headers.items()}
            _check(contact, request, status=answer.status_code, headers=headers, body=body)
            return answer

    return CheckedSession


def _kind(request: Any) -> str:
    if "x-amz-copy-source" in {name.lower() for name in request.headers}:
        return "COPY"
    query = urlsplit(request.url).query
    if request.method == "GET" and "list-type=2" in query:
        return "LIST"
    return "DELETE" if request.method == "POST" and "delete" in query.split("&") else str(request.method)


def _check(contact: Contact, request: Any, *, status: int, headers: dict[str, str], body: bytes) -> None:
    """Raises StorageError for an answer that no S3 store gives.

    Args:
        body: empty where it is an object's content, which is still to come.
    """
    endpoint_url = "{0.scheme}://{0.netloc}".format(urlsplit(request.url))
    if 300 < status < 400 and status != 304 and "x-amz-bucket-region" not in headers:
        raise redirected(request.url, headers.get("location", ""))
    marks = any(name.startswith("x-amz-") for name in headers) or not headers.get("etag", "W/").startswith("W/")
    page = PAGE.match(body) or (status == 200 and not body and not marks and "/html" in headers.get("content-type", ""))
    if page and status < 500 and status != 429:  # a proxy in front of a busy store answers with a page, too
        raise not_an_endpoint(endpoint_url, f"a web page (HTTP {status})")
    if status == 200 and "list-type=2" in request.url and LIST_MARK not in body[:4096]:
        raise not_an_endpoint(endpoint_url, "something other than a listing")
    contact.answered = True
    contact.is_remote = contact.is_remote or marks or b"<Error>" in body[:4096]


def version_of(answer: dict[str, Any]) -> str:
    """The ETag, or the time of the last change where a store gives none, or ""."""
    if etag := answer.get("ETag", "").strip('"'):
        return str(etag)
    return f"{MODIFIED}{answer['LastModified']:%Y-%m-%dT%H:%M:%SZ}" if answer.get("LastModified") else ""


async def read_body(
    answer: Any, uri: str, limit: asyncio.Timeout, *, max_bytes: int | None, size_bytes: int | None
) -> bytes:
    """The body, in time for its length: what comes slower than MIN_BYTES_PER_S does not extend the limit enough."""
    if max_bytes is not None and size_bytes is not None and size_bytes > max_bytes:
        answer["Body"].close()
        raise too_many_bytes(uri, size_bytes, max_bytes)
    began, chunks, came = limit.when() or 0.0, [], 0
    try:
        async for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
            chunks.append(chunk)
            came += len(chunk)
            if max_bytes is not None and came > max_bytes:
                raise too_many_bytes(uri, came, max_bytes)
            limit.reschedule(began + came / MIN_BYTES_PER_S)
    finally:
        answer["Body"].close()
    return b"".join(chunks)
