"""What a store's answers are worth: where they came from, whether they are S3's, and their bodies in good time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
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
    """What is known of an endpoint: whether it ever answered, and whether any answer was one that only S3 gives."""

    answered: bool = False
    is_s3: bool = False


class SameOrigin(AIOHTTPSession):
    """An HTTP session that takes no answer from another host than it asked."""

    async def send(self, request: Any) -> Any:
        answer = await super().send(request)
        asked, came = urlsplit(request.url), urlsplit(answer.url)
        if (asked.scheme, asked.netloc) != (came.scheme, came.netloc):
            raise redirected(request.url, answer.url)
        return answer


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


def answer_check(contact: Contact, endpoint_url: str) -> Callable[..., None]:
    """What looks at each answer before it is parsed: a web page is no listing, nor is it an object.

    It knows nothing of the client, so that this can be collected.
    """

    def check(operation_model: Any, response_dict: Any, **_: Any) -> None:
        headers, status = response_dict["headers"], int(response_dict["status_code"])
        body = response_dict["body"] if isinstance(response_dict["body"], bytes) else b""  # else an object's content
        passing = status >= 500 or status == 429  # a proxy before a store says so with a page, too
        if PAGE.match(body) and not passing:
            raise not_an_endpoint(endpoint_url, f"a web page (HTTP {status})")
        if operation_model.name == "ListObjectsV2" and status == 200 and LIST_MARK not in body[:4096]:
            raise not_an_endpoint(endpoint_url, "something other than a listing")
        contact.answered = True
        marks = any(name.lower().startswith("x-amz-") for name in headers) or "etag" in headers
        contact.is_s3 = contact.is_s3 or marks or b"<Error>" in body[:4096]

    return check
