"""Whether a manifest file is still the one that was planned."""

from __future__ import annotations

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.file_times import local_time, touch_command
from unipic.pipeline.storage.paths import is_remote
from unipic.pipeline.storage.storage import FileInfo, Storage


def current_version(file: ManifestFile, storage: Storage) -> str:
    """The version of the file that is going to be read.

    A file on S3 that has a planned version is not looked up for this: it is checked when it is opened.

    Raises:
        ManifestError: it is not the one that was planned.
    """
    if file.version and is_remote(file.uri):
        return file.version
    return check_version(file, storage).version


def check_version(file: ManifestFile, storage: Storage) -> FileInfo:
    """The file as it is there now. Raises ManifestError if another version was planned ("": any)."""
    info = storage.info(file.uri)
    planned, found = file.version, info.version
    if planned in ("", found):
        return info
    local = not is_remote(file.uri)
    how = "modification time" if local else "version"
    then, now = (local_time(one) if local else one for one in (planned, found))
    same = f" If its bytes are the same: {touch_command(file.uri, planned)}" if local else ""
    raise ManifestError(
        f"{file.uri} changed since the run was planned: its {how} was {then}, now it is {now}.",
        remedy=f"A manifest must not change while it is read: write new rows to new files.{same}",
    )
