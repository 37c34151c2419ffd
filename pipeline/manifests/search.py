"""Which files a manifest's address stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from unipic.pipeline.errors import EmptyManifest, ManifestError
from unipic.pipeline.images.archives import archive_kind
from unipic.pipeline.manifests import image_folder
from unipic.pipeline.storage.paths import is_s3, local_path, relative
from unipic.pipeline.storage.storage import FileInfo, Storage

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}
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
            remedy="Correct input.manifest or output.uri.",
        )
    return folder, others


def format_of(uri: str) -> str | None:
    """What the name says the file is; None where it says none of ours."""
    return FORMATS.get(os.path.splitext(uri)[1].lower())


def suitable(found: Sequence[FileInfo], wanted: str) -> list[FileInfo]:
    """Those of `found` that are manifests of the format `wanted`, as far as names tell."""
    if wanted != "auto":
        return [info for info in found if len(found) == 1 or format_of(info.uri) == wanted] or list(found)
    return [info for info in found if format_of(info.uri)]


def no_manifest(manifest: str, found: Sequence[FileInfo]) -> ManifestError:
    """Says what `found`, in which there is neither a manifest nor an image, is instead."""
    for info in found:
        if kind := archive_kind(info.uri):
            return ManifestError(
                f"{info.uri} is {kind}, which is never opened.",
                remedy="Unpack it, and name a manifest or the folder of images.",
            )
    endings = f"Manifests end in {', '.join(FORMATS)}, images in {', '.join(image_folder.SUFFIXES)}"
    if [info.uri.rpartition("/")[2] for info in found] == [manifest.rpartition("/")[2]]:
        return ManifestError(f"{manifest} is no manifest by its name.", remedy=f"{endings}; or set input.format.")
    others = f"{len(found)} other file{'' if len(found) == 1 else 's'}"
    return EmptyManifest(
        f"{manifest} has neither a manifest nor images in it: {others}.",
        remedy=f"{endings}; or set input.format.",
    )


def _at(uri: str, storage: Storage) -> tuple[str, list[FileInfo]]:
    if not uri.endswith("/") and uri.count("/") > 2 * is_s3(uri) and storage.exists(uri):
        return uri.rpartition("/")[0], [storage.info(uri)]
    folder, rest = storage.parted(uri)
    if rest:
        found = storage.glob(uri)
        if not found:
            raise ManifestError(f"No file matches {uri}.", remedy="Correct input.manifest.")
        return folder, found
    folder = uri.rstrip("/")
    found = [info for info in storage.list(folder, recursive=True) if not _hidden(relative(info.uri, folder))]
    if not found:
        if not is_s3(uri) and os.path.isdir(folder):
            raise EmptyManifest(f"The folder {folder} is empty: no manifest and no images in it.")
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
