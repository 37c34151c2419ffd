"""Where the small trained checkpoint lies, if this installation has it."""

from __future__ import annotations

from pathlib import Path


def shipped_checkpoint() -> Path | None:
    """The folder of the checkpoint that ships with the package, None where it is not there."""
    folder = Path(__file__).resolve().parent / "checkpoint"
    return folder if (folder / "digests.json").is_file() else None
