"""Which files are at a manifest's address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from unipic.pipeline.errors import EmptyManifest, ManifestError
from unipic.pipeline.images.archives import archive_kind
from unipic.pipeline.manifests import image_folder
from unipic.pipeline.manifests.table_formats import refuse_tables
from unipic.pipeline.near import near
from unipic.pipeline.storage.paths import is_remote, local_path, relative
from unipic.pipeline.storage.storage import FileInfo, Storage

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
}
COMPRESSED = (".gz", ".zst")  # of text; Parquet compresses itself
OWN_FOLDERS = ("data", "rejected", "images", "_unipic")  # what a job writes below its output folder


@dataclass(frozen=True)
class Found:
    """What is at a manifest's address.

    Attributes:
        folder: what the files' names are relative to.
        files: sorted by URI.
        hidden: manifests and images by name, left out because a name in their path begins with "." or "_".
        names_text: whether the address is that of files of plain text.
    """

    folder: str
    files: list[FileInfo]
    hidden: list[FileInfo] = field(default_factory=list)
    names_text: bool = False


def find(manifest: str, storage: Storage, *, outside: str = "", tables: bool = True) -> Found:
    """The files of a manifest.

    Args:
        manifest: a file, a folder or a glob. What there is by that very name is no glob.
        outside: the job's own output folder; what the job wrote there is left out. "" for none.
        tables: refuse a folder whose files alone do not say what its rows are.

    Raises:
        ManifestError: no file is there, or none but the job's own outputs; or it is a table of another format.
    """
    uri = manifest if is_remote(manifest) else os.path.abspath(local_path(manifest))
    found = _at(uri, storage, tables=tables)
    _check_names(found.files, found.folder)
    others = _outside(found.files, found.folder, outside) if outside else found.files
    if not others:
        raise ManifestError(
            f"No file matches {uri} but those in {outside}, which is this job's own output.",
            remedy="Correct input.manifest or output.uri.",
        )
    hidden = _outside(found.hidden, found.folder, outside) if outside else found.hidden
    return replace(found, files=others, hidden=hidden)


def _check_names(files: Sequence[FileInfo], folder: str) -> None:
    """Raises ManifestError for a manifest or an image whose name is no text: no lineage could name it."""
    for info in files:
        name = info.uri.removeprefix(f"{folder}/")
        if not name.isprintable() and (format_of(name) or image_folder.is_image(name)):
            try:
                name.encode()
            except UnicodeEncodeError:
                shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                raise ManifestError(
                    f"The name of the file {shown} in {folder} is not UTF-8.", remedy="Rename the file."
                ) from None


def format_of(uri: str) -> str | None:
    """What the name says the file is; None where it says none of ours."""
    name = uri.lower()
    inner = name.removesuffix(next((suffix for suffix in COMPRESSED if name.endswith(suffix)), ""))
    found = FORMATS.get(os.path.splitext(inner)[1])
    return None if found == "parquet" and inner != name else found


def _tar(uri: str) -> str:
    return "webdataset" if uri.lower().endswith(".tar") else ""


def suitable(found: Found, wanted: str) -> list[FileInfo]:
    """Those that are manifests of the format `wanted`, as far as names tell.

    Of plain text only where the address says so: folders of images often have a text beside each image.
    """
    files = found.files
    if wanted != "auto":
        by_name = "jsonl" if wanted == "openai-batch" else wanted
        named = [info for info in files if len(files) == 1 or (format_of(info.uri) or _tar(info.uri)) == by_name]
        return named or list(files)
    formats = {*FORMATS.values()} - (set() if found.names_text else {"txt"})
    return [info for info in files if format_of(info.uri) in formats]


def no_manifest(manifest: str, found: Sequence[FileInfo]) -> ManifestError:
    """Says what `found`, in which there is neither a manifest nor an image, is instead."""
    for info in found:
        if kind := archive_kind(info.uri):
            return ManifestError(
                f"{info.uri} is {kind}, which is never opened.",
                remedy="Unpack it, and name a manifest or the folder of images."
                + (" A WebDataset shard is read with input.format: webdataset." if info.uri.endswith(".tar") else ""),
            )
    endings = f"Manifests end in {', '.join(FORMATS)}, images in {', '.join(image_folder.SUFFIXES)}"
    if [info.uri.rpartition("/")[2] for info in found] == [manifest.rpartition("/")[2]]:
        return ManifestError(f"{manifest} is no manifest by its name.", remedy=f"{endings}; or set input.format.")
    others = f"{len(found)} other file{'' if len(found) == 1 else 's'}"
    return EmptyManifest(
        f"{manifest} has neither a manifest nor images in it: {others}.",
        remedy=f"{endings}; or set input.format.",
    )


def _at(uri: str, storage: Storage, *, tables: bool) -> Found:
    if not uri.endswith("/") and uri.count("/") > 2 * is_remote(uri) and storage.exists(uri):
        return Found(uri.rpartition("/")[0], [storage.info(uri)], names_text=format_of(uri) == "txt")
    folder, rest = storage.parted(uri)
    if rest:
        found = storage.glob(uri)
        if not found:
            raise ManifestError(f"No file matches {uri}.", remedy="Correct input.manifest.")
        if tables:
            refuse_tables(folder, {relative(info.uri, folder) for info in found}, storage)
        return Found(folder, found, names_text=format_of(uri) == "txt")
    folder = uri.rstrip("/")
    every = list(storage.list(folder, recursive=True))
    names = {info.uri: relative(info.uri, folder) for info in every}
    if tables and every:
        refuse_tables(folder, set(names.values()), storage)
    found = [info for info in every if not _hidden(names[info.uri])]
    if not found:
        if not is_remote(uri) and os.path.isdir(folder):
            raise EmptyManifest(f"The folder {folder} is empty: no manifest and no images in it.")
        remedy = "" if is_remote(uri) else _near(folder)
        raise ManifestError(f"There is no manifest at {uri}: no file, and no folder with files in it.", remedy=remedy)
    readable = [info for info in every if format_of(info.uri) or image_folder.is_image(info.uri)]
    return Found(folder, found, [info for info in readable if _hidden(names[info.uri])])


def _near(path: str) -> str:
    """The name next to a missing `path` that may be meant, as a hint; "" without one."""
    parent, name = os.path.split(path)
    try:
        known = [entry for entry in os.listdir(parent) if not _hidden(entry)]
    except OSError:
        return ""
    close = near(name, known)
    return f'Did you mean "{close}"?' if close else ""


def _outside(found: Sequence[FileInfo], folder: str, output: str) -> list[FileInfo]:
    """Those of `found` that are none of the outputs in `output`, whatever links lead to the two folders."""
    if is_remote(folder) != is_remote(output):
        return list(found)
    if is_remote(folder):
        there, real = output.rstrip("/"), folder
    else:
        there, real = os.path.realpath(local_path(output)).rstrip("/"), os.path.realpath(folder)
    own = tuple(f"{there}/{name}/" for name in OWN_FOLDERS)
    return [info for info in found if not (real + info.uri[len(folder) :]).startswith(own)]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
