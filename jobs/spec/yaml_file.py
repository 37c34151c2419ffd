"""Parses YAML into plain values with the place of every key, and reports YAML's pitfalls as faults.

It accepts maps, lists and scalars: no aliases, tags or duplicate keys. That bounds time and memory by the file size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str, ...]

FILE_MAX_BYTES = 1 << 20
_DEPTH_MAX = 20  # a job nests three deep; the composer below recurses once a level
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp")}
_SCALAR_FAULTS = (
    (re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?"), "is the number {value} in YAML; quote it if it is text"),
    (
        re.compile(r"[-+]?0[0-7_]+"),
        "is the octal number {value} in YAML; remove the leading zero, or quote it",
    ),
    (re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE), "must be a finite number, got {text}"),
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a job.

    Attributes:
        path: the keys to the value; () is the whole job.
        line: from 1; 0 for an override.
        place: the prefix of the message, e.g. `configs/edit.yaml:12 compute.batch_size`.
        message: the fault and, if useful, what to write instead.
    """

    path: Path
    line: int
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Document:
    """The content of a YAML text.

    Attributes:
        value: maps, lists and scalars; a faulty scalar is None.
        lines: the line of each key, by path.
        plain: the unquoted scalars as written, by path.
        faults: (path, line, message) of each fault.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    plain: dict[Path, str] = field(default_factory=dict)
    faults: list[tuple[Path, int, str]] = field(default_factory=list)


class _TooDeep(yaml.MarkedYAMLError):
    """The text is nested too deeply."""


class _Loader(yaml.SafeLoader):
    """Safe loader whose composer turns every alias into a marked scalar, so that no node is shared."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            return yaml.ScalarNode("!alias", event.anchor, event.start_mark, event.end_mark)
        if self.depth >= _DEPTH_MAX:
            mark = self.peek_event().start_mark
            raise _TooDeep(problem=f"is nested more than {_DEPTH_MAX} levels deep", problem_mark=mark)
        self.depth += 1
        self.anchors.clear()  # a repeated anchor name would raise
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str) -> Document:
    """Reads `text`, one YAML document. Never raises; a syntax error becomes a fault."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.value = _value(node, (), loader, document)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.problem, error.context) if part)
        document.faults.append(((), mark.line + 1 if mark else 1, f"is not valid YAML: {reason}"))
    except yaml.YAMLError as error:
        document.faults.append(((), 1, f"is not valid YAML: {str(error).splitlines()[0]}"))
    return document


def _value(node: yaml.Node, path: Path, loader: _Loader, document: Document) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(node, path, loader, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        values = []
        for position, item in enumerate(node.value):
            place = (*path, str(position))
            document.lines[place] = item.start_mark.line + 1
            values.append(_value(item, place, loader, document))
        return values
    if isinstance(node, yaml.ScalarNode) and node.tag == "!alias":
        document.faults.append((path, line, f"aliases (*{node.value}) are not supported: write the value out"))
        return None
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS:
        document.faults.append((path, line, f"the tag {node.tag} is not allowed: use maps, lists, text and numbers"))
        return None
    return _scalar(node, path, loader, document)


def _scalar(node: yaml.ScalarNode, path: Path, loader: _Loader, document: Document) -> Any:
    line = node.start_mark.line + 1
    if node.tag == "tag:yaml.org,2002:timestamp":
        document.plain[path] = node.value
        document.faults.append((path, line, f'{node.value} is a date in YAML; quote it: "{node.value}"'))
        return None
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError, KeyError):
        document.faults.append((path, line, f"{_short(node.value)} cannot be read as {node.tag.rpartition(':')[2]}"))
        return None
    if node.style is not None:
        return value
    document.plain[path] = node.value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for pattern, template in _SCALAR_FAULTS:
            if pattern.fullmatch(node.value):
                fault = template.format(value=value, text=node.value)
                document.faults.append((path, line, f"{node.value} {fault}" if template.startswith("is ") else fault))
                return None
        if isinstance(value, float) and not math.isfinite(value):
            document.faults.append((path, line, f"must be a finite number, got {_short(node.value)}"))
            return None
    return value


def _mapping(node: yaml.MappingNode, path: Path, loader: _Loader, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _key(key_node, loader)
        if key is None:
            shown = _short(getattr(key_node, "value", "")) if isinstance(key_node, yaml.ScalarNode) else "a map or list"
            hint = f': YAML reads it as {_reading(key_node)}; quote it, "{shown}"' if _reading(key_node) else ""
            document.faults.append((path, line, f"the key {shown} is not text{hint}"))
            continue
        place = (*path, key)
        if key in values:
            first = document.lines[place]
            document.faults.append((place, line, f"is duplicated on lines {first} and {line}: keep one"))
            continue
        document.lines[place] = line
        values[key] = _value(value_node, place, loader, document)
    return values


def _key(node: yaml.Node, loader: _Loader) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == "tag:yaml.org,2002:merge":
        return str(node.value)
    if node.tag != "tag:yaml.org,2002:str":
        return None
    key: Hashable = loader.construct_object(node)
    return str(key)


def _reading(node: yaml.Node) -> str:
    """How YAML 1.1 reads a key that looks like text: `no` is false, `12:30` a number."""
    kind = node.tag.rpartition(":")[2] if isinstance(node, yaml.ScalarNode) else ""
    if kind == "bool":
        return "false" if node.value.lower() in ("no", "off", "false") else "true"
    return {"int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}.get(kind, "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
