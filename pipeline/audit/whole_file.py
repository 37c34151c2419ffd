"""Local files that appear when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unipic.pipeline.errors import JobError


@contextmanager
def whole_file(to: Path, *, force: bool) -> Iterator[IO[str]]:
    """A text file that is at `to` once the block has ended without an error; otherwise nothing changes.

    Raises:
        JobError: the file is there and `force` is not given, or it cannot be written.
    """
    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    _refuse_existing(to, force=force)
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _refuse_existing(to, force=force)
        partial.replace(to)
    except OSError as error:
        raise JobError(f"{to} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(to: Path, *, force: bool) -> None:
    if to.exists() and not force:
        raise JobError(f"{to} exists already.", remedy="--force replaces it.")
