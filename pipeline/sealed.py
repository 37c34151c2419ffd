"""JSON files that carry a digest of themselves, and typed values built from JSON with faults in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
SEAL = "sha256"


def digest(value: Any) -> str:
    """SHA-256 (hex) of `value` as canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sealed(value: Mapping[str, Any]) -> str:
    """`value` as JSON with the digest of its canonical form under "sha256"."""
    plain = json.loads(json.dumps(value))  # tuples become lists, as a reader will see them
    return json.dumps({**plain, SEAL: digest(plain)}, sort_keys=True, indent=1)


def unsealed(text: str | bytes) -> dict[str, Any]:
    """What `sealed` was given.

    Raises:
        ValueError: it is not JSON, not an object, or its digest is missing or does not match.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON at line {error.lineno}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is not JSON text") from error
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    seal = value.pop(SEAL, None)
    if seal is None:
        raise ValueError(f"it lacks its digest, {SEAL!r}")
    if seal != digest(value):
        raise ValueError("its content does not match its digest")
    if json.dumps({**value, SEAL: seal}, sort_keys=True, indent=1).encode() != _as_bytes(text):
        raise ValueError("it is not laid out as it was written")
    return value


def build(kind: type[T], value: Any, **convert: Callable[[Any], Any]) -> T:
    """The dataclass `kind` from a JSON object.

    Args:
        convert: field → what makes its value of the JSON's.

    Raises:
        ValueError: a field is missing, unknown, or of another type, by name.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} must be a JSON object, got {type(value).__name__}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    missing = [one.name for one in fields if one.name not in value]
    unknown = sorted(value.keys() - {one.name for one in fields})
    if missing or unknown:
        raise ValueError(f"it lacks {missing[0]!r}" if missing else f"it has an unknown field {unknown[0]!r}")
    made = {}
    for name, hint in _hints(kind).items():  # type: ignore[arg-type]
        try:
            made[name] = convert[name](value[name]) if name in convert else value[name]
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{name!r} is of another type than it must be") from error
        if not _fits(made[name], hint):
            raise ValueError(f"{name!r} is of another type than it must be")
    return kind(**made)


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the annotated type; bool is no int, and an int is a float."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in inside)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inside[0]) for one in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, inside[0]) and _fits(one, inside[1]) for key, one in value.items()
        )
    return isinstance(value, hint)


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)
