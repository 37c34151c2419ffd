"""Requests of OpenAI batch files as rows: the fields of a body as columns, and why a request cannot be done."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import RejectionKind, RowError
from unipic.pipeline.job import CaptionParams, Job, Task
from unipic.pipeline.records import PICTURE

TASK_OF: dict[str, Task] = {
    "/v1/images/generations": "generate",
    "/v1/images/edits": "edit",
    "/v1/chat/completions": "caption",
}
REQUEST = "request"
_REQUEST = pa.struct(
    [
        ("size", pa.string()),
        ("n", pa.int64()),
        ("max_tokens", pa.int64()),
        ("output_format", pa.string()),
        ("unused", pa.string()),
        ("fault", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("custom_id", pa.string()),
        ("url", pa.string()),
        ("prompt", pa.string()),
        ("image", PICTURE),
        ("seed", pa.string()),
        (REQUEST, _REQUEST),
    ]
)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_READ = {
    "/v1/images/generations": {"prompt", "n", "size", "seed", "output_format", "response_format"},
    "/v1/images/edits": {"prompt", "n", "size", "seed", "output_format", "response_format", "image", "images", "mask"},
    "/v1/chat/completions": {"messages", "n", "max_tokens", "max_completion_tokens", "stream"},
}


class _Unfit(Exception):
    """Half a sentence: why a request is no row of ours."""


def row_of(url: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a batch file as a row of `SCHEMA`."""
    identity, body = line.get("custom_id"), line.get("body")
    row: dict[str, Any] = {"custom_id": _as_text(identity), "url": url}
    request: dict[str, Any] = {"fault": None}
    try:
        if not isinstance(identity, str) or not identity:
            raise _Unfit("it has no custom_id")
        if line.get("method") != "POST":
            raise _Unfit("its method is not POST")
        if not isinstance(body, dict):
            raise _Unfit("its body is no JSON object")
        names = [name for name in body if name not in _READ[url] and _as_text(name) == name]
        request["unused"] = ", ".join(sorted(names)) or None
        request["n"] = _number(body, "n")
        if TASK_OF[url] == "caption":
            row |= _chat(body)
            request["max_tokens"] = _number(body, "max_completion_tokens") or _number(body, "max_tokens")
        else:
            row |= _images(url, body)
            request |= {name: _string(body, name) for name in ("size", "output_format")}
    except _Unfit as unfit:
        request["fault"] = str(unfit)
    return {**row, REQUEST: request}


def check(request: Mapping[str, Any], job: Job) -> None:
    """Hold a row's request against the job. Raises RowError, with the setting that would have to differ."""
    params = job.params
    fault, setting = request["fault"], ""
    size, n, most = request["size"], request["n"], request["max_tokens"]
    if fault is None and isinstance(params, CaptionParams):
        if most is not None and most < params.max_new_tokens:
            fault = f"it allows {most:,} tokens, and this job's captions may have {params.max_new_tokens:,}"
            setting = "params.max_new_tokens"
        elif n not in (None, 1):
            fault = f"it asks for {n:,} answers, and a job gives one"
    elif fault is None and not isinstance(params, CaptionParams):
        ours = f"{job.image_size}x{job.image_size}"
        if size not in (None, "auto", ours):
            fault, setting = f"it asks for images of {size}, and this job makes {ours}", "params.image_size"
        elif n is not None and n != job.samples_per_row:
            fault = f"it asks for {n:,} image{'s' * (n != 1)}, and this job makes {job.samples_per_row:,}"
            setting = "params.samples_per_row"
        elif request["output_format"] not in (None, params.image_format):
            fault = f"it asks for {request['output_format']}, and this job writes {params.image_format}"
            setting = "params.image_format"
    if fault is not None:
        remedy = f"Run such requests as a job with another {setting}." if setting else ""
        raise RowError(RejectionKind.UNSUPPORTED_REQUEST, f"The request cannot be done: {fault}.", remedy=remedy)


def _images(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("response_format") not in (None, "b64_json"):
        raise _Unfit("images are answered as b64_json, not as its response_format")
    row: dict[str, Any] = {"prompt": _string(body, "prompt")}
    if (seed := _number(body, "seed")) is not None:
        row["seed"] = str(seed)
    if TASK_OF[url] == "edit":
        if body.get("mask") is not None:
            raise _Unfit("it has a mask, and edits here change whole images")
        row["image"] = _one_image([*_listed(body.get("image")), *_listed(body.get("images"))])
    return row


def _chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The question and the image of a conversation, which must be one user's message."""
    if body.get("stream"):
        raise _Unfit("it asks for a stream")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise _Unfit("its messages are no list of objects")
    roles = [one.get("role") for one in messages]
    if roles != ["user"]:
        raise _Unfit(f"it has {len(roles):,} messages, and a question is one message of the user")
    content = messages[0].get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else _listed(content)
    texts, images = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(_string(part, "text") or "")
        elif kind == "image_url":
            images.append(part.get("image_url"))
        else:
            raise _Unfit(f"a part of its message is {str(kind)[:50]!r}, not text or image_url")
    return {"prompt": "\n".join(texts) or None, "image": _one_image(images)}


def _one_image(found: list[Any]) -> dict[str, Any]:
    """A data: URL's bytes, or where the image is."""
    if len(found) != 1:
        raise _Unfit(f"it has {len(found):,} images, and each row takes one")
    (value,) = found
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise _Unfit("its image is an uploaded file's id, and only URLs are read")
        value = value.get("image_url", value.get("url"))
        value = value.get("url") if isinstance(value, dict) else value
    if not isinstance(value, str) or _as_text(value) != value:
        raise _Unfit("its image is no URL")
    if value[:5].lower() != "data:":
        return {"bytes": None, "path": value}
    start = _DATA_URL.match(value)
    if start is None:
        raise _Unfit("its image is a data: URL without base64")
    try:
        return {"bytes": base64.b64decode(value[start.end() :], validate=True), "path": None}
    except (binascii.Error, ValueError):
        raise _Unfit("its image is a data: URL whose base64 is damaged") from None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _string(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or _as_text(value) != value):
        raise _Unfit(f"its {name} is no text")
    return value


def _number(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise _Unfit(f"its {name} is no whole number from 0")
    return value


def _as_text(value: Any) -> str | None:
    """`value` if it is text, half surrogate pairs replaced, which Arrow cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
