"""Durations, sizes, counts, rates and values as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """`seconds` as 9 s, 2:07, 3:02:07 or 2 d 03:02 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02d}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d}:{minutes:02d} h" if days else f"{hours}:{minutes:02d}:{rest:02d}"


def size(count_bytes: float) -> str:
    """`count_bytes` in the decimal unit that fits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} TB"


def count(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rate(per_second: float, nouns: str) -> str:
    """`3.4 rows/s`, or per minute below one every ten seconds."""
    if per_second >= 0.1 or per_second == 0:
        return f"{per_second:.1f} {nouns}/s"
    return f"{60 * per_second:.1f} {nouns}/min"


def as_json(value: Any) -> str:
    """A dataclass (or several) as indented JSON; values without a JSON form become text."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        if isinstance(item, Mapping):
            return dict(item)
        return str(item)

    return json.dumps(value, default=plain, indent=2, ensure_ascii=False)
