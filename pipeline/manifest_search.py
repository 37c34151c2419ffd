"""Which files a manifest's address stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.errors import EmptyManifest, ManifestError
from pipeline.storage import FileInfo, Storage, is_s3, local_path, relative

OWN_FOLDERS = ("data", "rejected", "images", "_unipic")  # what a job writes below its output folder


def find(manifest: str, storage: Storage, *, outside: str = "") -> tuple[str, list[FileInfo]]:
    """The files of a manifest, and the folder that their names are relative to.

    Args:
        manifest: a file, a folder or a glob. What there is by that very name is no glob.
        outside: the job's own output folder; what the job wrote there is left out. "" for none.

    Raises:
        ManifestError: no file is there, or none but the job's own outputs.
    """
    uri = manifest if is_s3(manifest) else os.path.abspath(local_path(manifest))
    folder, found = _at(uri, storage)
    others = _outside(found, folder, outside) if outside else found
    if not others:
        raise ManifestError(
            f"No file matches {uri} but those in {outside}, which is this job's own output.",
            remedy="Mend input.manifest or output.uri.",
        )
    return folder, others


def _at(uri: str, storage: Storage) -> tuple[str, list[FileInfo]]:
    if not uri.endswith("/") and uri.count("/") > 2 * is_s3(uri) and storage.exists(uri):
        return uri.rpartition("/")[0], [storage.info(uri)]
    folder, rest = storage.parted(uri)
    if rest:
        found = storage.glob(uri)
        if not found:
            raise ManifestError(f"No file matches {uri}.", remedy="Mend input.manifest.")
        return folder, found
    folder = uri.rstrip("/")
    found = [info for info in storage.list(folder, recursive=True) if not _hidden(relative(info.uri, folder))]
    if not found:
        if not is_s3(uri) and os.path.isdir(folder):
            raise EmptyManifest(f"The folder {folder} is empty: no manifest and no pictures in it.")
        raise ManifestError(f"There is no manifest at {uri}: no file, and no folder with files in it.")
    return folder, found


def _outside(found: Sequence[FileInfo], folder: str, output: str) -> list[FileInfo]:
    """Those of `found` that are none of the outputs in `output`, whatever links lead to the two folders."""
    if is_s3(folder) != is_s3(output):
        return list(found)
    if is_s3(folder):
        there, real = output.rstrip("/"), folder
    else:
        there, real = os.path.realpath(local_path(output)).rstrip("/"), os.path.realpath(folder)
    own = tuple(f"{there}/{name}/" for name in OWN_FOLDERS)
    return [info for info in found if not (real + info.uri[len(folder) :]).startswith(own)]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
