"""Numbers as people read them."""

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


def count(number: int, one: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def rate(per_second: float, what: str) -> str:
    """`3.4 rows/s`, or by the minute where a second is too short."""
    if per_second >= 0.1 or per_second == 0:
        return f"{per_second:.1f} {what}/s"
    return f"{60 * per_second:.1f} {what}/min"


def as_json(value: Any) -> str:
    """A dataclass (or several) as indented JSON; what JSON has no word for becomes text."""

    def plain(one: Any) -> Any:
        if dataclasses.is_dataclass(one) and not isinstance(one, type):
            return dataclasses.asdict(one)
        if isinstance(one, Mapping):
            return dict(one)
        return str(one)

    return json.dumps(value, default=plain, indent=2, ensure_ascii=False)
