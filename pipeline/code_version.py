"""Which code wrote a row: the release, and the commit or a digest of the sources that ran."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOMS = ("model", "pipeline", "jobs")
DIGITS = 12
GIT_TIMEOUT_S = 10.0
STATED = "pipeline/code_version.txt"
"""Of a package that was shipped to a cluster: the code version of the machine that it comes from."""


@lru_cache
def code_version() -> str:
    """`0.1.0+g<commit>` of a clean checkout; `0.1.0+g<commit>.dirty.<digest>` of a changed one; `0.1.0+wheel.<digest>`
    where the package is installed. The digest is that of the package's Python files, the same on every machine.

    A run takes the value once, in the driver, and its workers state that one.
    """
    return version_of(Path(__file__).resolve().parents[1], _release())


def version_of(root: Path, release: str) -> str:
    """`code_version` of the package whose rooms are in `root`."""
    if not (root / ".git").exists():
        digest = _digest(root)
        return _stated(root, digest) or f"{release}+wheel.{digest}"
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *(f"{room}/*.py" for room in ROOMS))
    if not commit or changes is None:  # a checkout without commits, or a machine without git
        return f"{release}+source.{_digest(root)}"
    clean = f"{release}+g{commit[:DIGITS]}"
    return f"{clean}.dirty.{_digest(root)}" if changes else clean


def stated(version: str) -> str:
    """The content of `STATED` for this package. It counts while the package's files are as they are now."""
    return f"{version} {code_digest()}\n"


def _stated(root: Path, digest: str) -> str:
    try:
        version, of = (root / STATED).read_text().split()
    except (OSError, ValueError):
        return ""
    return version if of == digest else ""


def code_digest() -> str:
    """Of the files of this package, whatever its version says."""
    return _digest(Path(__file__).resolve().parents[1])


def _release() -> str:
    try:
        return version("unipic-batch")
    except PackageNotFoundError:
        return "0"


def _digest(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:DIGITS]


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers, without the line's end; None where it cannot."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
