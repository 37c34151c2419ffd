"""Finds the small trained checkpoint of this installation."""

from __future__ import annotations

from pathlib import Path


def shipped_checkpoint() -> Path | None:
    """The folder of the checkpoint that ships with the package, or None."""
    folder = Path(__file__).resolve().parent / "checkpoint"
    return folder if (folder / "digests.json").is_file() else None
