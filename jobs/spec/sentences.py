"""Turns pydantic errors into one actionable sentence per place in the job, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

from pydantic import BaseModel

from unipic.jobs.spec.yaml_file import Path
from unipic.pipeline.errors import redact
from unipic.pipeline.job import CaptionParams, EditParams, GenerateJob, ImageParams, Job
from unipic.pipeline.near import near

NO_SECRETS = (
    "credentials do not belong in a job: remove them, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "in the environment, or use ~/.aws/credentials"
)

_SECRET_VALUE = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|[a-z][a-z0-9+.-]{0,30}://[^/\s?#@]*@|[?&](X-Amz-Signature|X-Amz-Credential|Signature|sig)=",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(
    r"(?i)^(aws_?)?(access_?key(_?id)?|secret(_?access)?(_?key)?|session_?token|security_?token|token|password|passwd"
    r"|credentials?|api_?key|key_?id|account_?key)$"
)

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "model_type": "a map of keys",
    "model_attributes_type": "a map of keys",
    "dict_type": "a map of keys",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_PATTERNS = {
    "name": "must start with a letter or digit, followed by letters, digits, spaces and . _ -",
    "limits.until": 'must be a time of day in quotes, such as "07:00" or "07:00 Europe/Berlin"',
    "storage.endpoint_url": "must be an http:// or https:// address, such as http://127.0.0.1:9000",
}


def is_secret(text: str) -> bool:
    """Whether `text` looks like it contains credentials."""
    return _SECRET_VALUE.search(text) is not None


def secrets(values: Any, place: Path = ()) -> Iterator[Path]:
    """Places in a job whose key or value looks like a credential."""
    if isinstance(values, dict):
        for key, value in values.items():
            if _SECRET_KEY.match(key) and place != ("input", "columns"):
                yield (*place, key)
            else:
                yield from secrets(value, (*place, key))
    elif isinstance(values, list):
        for position, value in enumerate(values):
            yield from secrets(value, (*place, str(position)))
    elif isinstance(values, str) and is_secret(values):
        yield place


def faults(
    errors: list[Any], *, values: dict[str, Any], plain: dict[Path, str], job_type: type[Job] | None
) -> Iterator[tuple[Path, str]]:
    """One (place, sentence) for each place in pydantic's `errors`.

    Args:
        errors: from `ValidationError.errors()`.
        values: the validated values.
        plain: the unquoted scalars as written, by place.
        job_type: the job's type, or None if its task is unknown.
    """
    grouped: dict[Path, list[Any]] = {}
    for error in errors:
        grouped.setdefault(_place(error, values), []).append(error)
    for place, group in grouped.items():
        yield place, _sentence(place, group, plain=plain, job_type=job_type)


def _place(error: Any, values: dict[str, Any]) -> Path:
    """The error's location as keys of the file, without pydantic's own parts (union branches)."""
    place: list[str] = []
    current: Any = values
    for part in error["loc"]:
        in_map = isinstance(current, dict) and part in current
        if in_map or (isinstance(current, list) and isinstance(part, int) and part < len(current)):
            current = current[part]
        elif error["type"] == "missing" and isinstance(current, dict) and part == error["loc"][-1]:
            current = None
        else:
            continue
        place.append(str(part))
    return tuple(place)


def _sentence(place: Path, errors: list[Any], *, plain: dict[Path, str], job_type: type[Job] | None) -> str:
    value = errors[0]["input"]
    types = {error["type"] for error in errors}
    if "missing" in types:
        return "is missing"
    if "extra_forbidden" in types:
        return _unknown(place, job_type)
    about_type = [error for error in errors if error["type"] in _KINDS or error["type"] == "literal_error"]
    about_value = [error for error in errors if error not in about_type]
    if about_value:
        return _about_value(about_value[0], place)
    if value is None:
        return "is empty: give it a value, or remove the key"
    expected = [
        error["ctx"]["expected"] if error["type"] == "literal_error" else _KINDS[error["type"]] for error in about_type
    ]
    hint = ""
    written = plain.get(place)
    if "string_type" in types and written is not None:
        hint = f': quote it, "{written}"'
    elif types & {"int_type", "float_type"} and isinstance(value, str):
        hint = _number_hint(value, quoted=written is None)
    if types == {"literal_error"} and isinstance(value, str):
        guess = near(value, re.findall(r"'([^']*)'", expected[0]))
        hint = f"; did you mean {guess}?" if guess else ""
    return f"must be {' or '.join(dict.fromkeys(expected))}, got {shown(value)}{hint}"


def _number_hint(value: str, *, quoted: bool) -> str:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return ""
    if quoted or abs(number.adjusted()) > 20:
        return ": remove the quotes" if quoted else ""
    return f": YAML reads it as text; write {number:f}"


def _about_value(error: Any, place: Path) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _BOUNDS:
        phrase, key = _BOUNDS[kind]
        return f"must be {phrase} {context[key]:g}, got {_number(value)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters, got {len(value)}"
    if kind == "string_pattern_mismatch":
        return f"{_PATTERNS.get('.'.join(place), 'must match ' + context['pattern'])}, got {shown(value)}"
    if kind == "value_error":
        return redact(str(context["error"]))
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {shown(value)}"


def _unknown(place: Path, job_type: type[Job] | None) -> str:
    *above, key = place
    section = _section(job_type or GenerateJob, tuple(above))
    known = list(section.model_fields) if section is not None else []
    if guess := near(key, known):
        return f"unknown key; did you mean {guess}?"
    home = _home(key, job_type)
    if home:
        return f"unknown key here; {home}"
    return f"unknown key; valid keys: {', '.join(known)}" if known else "unknown key"


def _home(key: str, job_type: type[Job] | None) -> str:
    """Where a misplaced key belongs, or ""."""
    for name, field in (job_type or GenerateJob).model_fields.items():
        section = _model_in(field.annotation)
        if section is not None and key in section.model_fields:
            return f"it belongs under {name}"
    for task, params in (("generate", ImageParams), ("edit", EditParams), ("caption", CaptionParams)):
        if key in params.model_fields:
            return f"it is a parameter of {task} jobs"
    return ""


def _section(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that holds the keys at `path`."""
    current: type[BaseModel] | None = model
    for key in path:
        if current is None or key not in current.model_fields:
            return None
        current = _model_in(current.model_fields[key].annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def shown(value: Any) -> str:
    """`value` for a message: short, and without credentials."""
    if isinstance(value, dict):
        return "a map of keys"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    text = redact(repr(value)) if not is_secret(str(value)) else "…"
    return text if len(text) <= 80 else f"{text[:77]}…"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)
