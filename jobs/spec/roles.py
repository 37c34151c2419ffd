"""Finds a manifest's id, prompt and image columns by their names and types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Task

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_NOUNS = ("row", "sample", "example", "item", "record", "prompt", "question", "image", "photo", "picture", "img")
"""Of names such as prompt_id; other nouns (user_id, class_id) may name what many rows share."""
_NAMES = {
    "id": ("id", "key", "uid", "uuid", "__key__", *(f"{noun}_id" for noun in _ROW_NOUNS)),
    "prompt": ("prompt", "instruction", "text", "caption", "question", "description", "txt"),
    "image": ("image", "picture", "photo", "img", "url", "image_url", "path", "image_path", "file", "file_name"),
}
_OPTIONAL = {"generate": ("id",), "edit": ("id",), "caption": ("id", "prompt")}
_ROLES = {"generate": ("id", "prompt"), "edit": ("id", "image", "prompt"), "caption": ("id", "image")}


def task_for(schema: pa.Schema) -> Task:
    """The task that the columns suggest: images with instructions are edited, other images captioned."""
    image = _find("image", schema)
    if image is None:
        return "generate"
    return "edit" if "instruction" in {name.lower() for name in schema.names} else "caption"


def columns_for(task: Task, schema: pa.Schema, chosen: Mapping[str, str], *, instruction: bool) -> dict[str, str]:
    """Role → column of what `task` needs.

    Args:
        chosen: roles that the user has mapped already.
        instruction: one instruction for all rows is given, so an edit needs no prompt column.

    Raises:
        ManifestError: a chosen column is missing, or a role that the task needs has no column.
    """
    columns = {}
    for role in _ROLES[task]:
        if role == "prompt" and instruction and role not in chosen:
            continue
        column = chosen.get(role) or _find(role, schema)
        if column is not None and column in schema.names:
            columns[role] = column
        elif role in chosen or role not in _OPTIONAL[task]:
            raise _missing(role, column, task, schema)
    return columns | {role: column for role, column in chosen.items() if role not in columns}


def _missing(role: str, column: str | None, task: str, schema: pa.Schema) -> ManifestError:
    what = f"has no column {column!r}" if column else f"has no column that {task} jobs can use as {role}"
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    other = " or give one --instruction for all rows" if (task, role) == ("edit", "prompt") else ""
    return ManifestError(f"the manifest {what}; it has {listed}", remedy=f"Name it with --{role} COLUMN{other}.")


def _find(role: str, schema: pa.Schema) -> str | None:
    """The column of a role: by its usual names first, else the only one of a type that no other role has."""
    fits = _TYPES[role]
    by_name = {name.lower(): name for name in schema.names if fits(schema.field(name).type)}
    for usual in _NAMES[role]:
        if usual in by_name:
            return by_name[usual]
    if role == "image":
        nested = [field.name for field in schema if _is_image(field.type)]
        return nested[0] if len(nested) == 1 else None
    others = {name for key, names in _NAMES.items() if key != role for name in names}
    texts = [name for lower, name in by_name.items() if lower not in others]
    return texts[0] if role == "prompt" and len(texts) == 1 else None


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_image(kind: pa.DataType) -> bool:
    """Image bytes, or the {bytes, path} that Hugging Face datasets writes."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_id(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return _is_text(kind) or bool(pa.types.is_integer(kind))


_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "id": _is_id,
    "prompt": _is_text,
    "image": lambda kind: _is_text(kind) or _is_image(kind),
}
