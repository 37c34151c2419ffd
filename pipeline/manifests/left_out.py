"""What of a manifest's folder gives no rows: counted and named, so that no file is left out without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from unipic.pipeline.storage.paths import relative
from unipic.pipeline.storage.storage import FileInfo

NAMED = 3


def beside_manifests(images: Sequence[FileInfo], others: Sequence[FileInfo], base: str) -> list[str]:
    """Notes on files that lie where manifest files were found.

    Args:
        images: those that are images by name.
        others: those that are neither images nor manifests by name.
    """
    notes = []
    if images:
        notes.append(
            f"{_count(images, 'image')} beside the manifest files ({_named(images, base)}) are read only where a row "
            "names them; input.format: images reads all images of the folder instead"
        )
    if others:
        notes.append(f"left out as no manifests by name: {_count(others, 'file')}: {_named(others, base)}")
    return notes


def beside_images(others: Sequence[FileInfo], base: str) -> list[str]:
    """Notes on files of a folder of images that are no images by name."""
    if not others:
        return []
    kinds = Counter(_suffix(info.uri) for info in others)
    counted = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(kinds.items()))
    return [f"left out as no images by name: {_count(others, 'file')} ({counted}): {_named(others, base)}"]


def hidden(files: Sequence[FileInfo], base: str) -> list[str]:
    """Notes on manifests and images whose path has a name that begins as hidden files' names do."""
    if not files:
        return []
    return [f'left out: {_count(files, "file")} with a name that begins with "." or "_": {_named(files, base)}']


def _count(files: Sequence[FileInfo], what: str) -> str:
    return f"{len(files):,} {what}{'' if len(files) == 1 else 's'}"


def _named(files: Sequence[FileInfo], base: str) -> str:
    names = [relative(info.uri, base) for info in files[:NAMED]]
    return ", ".join(names) + (" …" if len(files) > NAMED else "")


def _suffix(uri: str) -> str:
    name, dot, suffix = uri.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and name else ""
