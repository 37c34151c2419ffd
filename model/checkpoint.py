"""Converted checkpoints: their files and digests.

A converted checkpoint holds `config.json`, `weights.safetensors`, `vae.safetensors`, `tokenizer/` and `digests.json`.
Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.json"
DIGESTS_FILE = "digests.json"
CARD_FILE = "README.md"  # a text for people; it may contain the digest
TOKENIZER_FOLDER = "tokenizer"
WEIGHTS_FILE = "weights.safetensors"
VAE_FILE = "vae.safetensors"

MAX_BYTES = {
    CONFIG_FILE: 2**20,
    WEIGHTS_FILE: 2**40,
    VAE_FILE: 2**36,
    **{
        f"{TOKENIZER_FOLDER}/{name}": 2**26
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "added_tokens.json",
            "special_tokens_map.json",
        )
    },
}
"""The files a checkpoint may have, and the most bytes of each. A name outside this set is never read or written."""
MAX_DIGESTS_BYTES = 2**16

_HASH_CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CheckpointFault(ValueError):
    """A checkpoint that cannot be used: damaged, incomplete or inconsistent. A retry never helps."""


@dataclass(frozen=True)
class Digests:
    """What `digests.json` records.

    Attributes:
        files: relative POSIX path → SHA-256 in hexadecimal.
        checkpoint: one digest of all of them.
        sizes: relative POSIX path → bytes; empty in checkpoints from before sizes were recorded.
    """

    files: dict[str, str]
    checkpoint: str
    sizes: dict[str, int]


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_files(files: dict[str, str]) -> str:
    """The digest of a checkpoint, from the digests of its files."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_digests(folder: Path) -> Digests:
    """Hashes every file of a finished checkpoint and writes `digests.json`."""
    files = {name: sha256_of(folder / name) for name in _file_names(folder)}
    sizes = {name: (folder / name).stat().st_size for name in files}
    recorded = Digests(files=files, checkpoint=digest_of_files(files), sizes=sizes)
    (folder / DIGESTS_FILE).write_text(to_json(recorded), encoding="utf-8")
    return recorded


def to_json(recorded: Digests) -> str:
    """The text of `digests.json`."""
    body = {"checkpoint": recorded.checkpoint, "files": dict(sorted(recorded.files.items()))}
    if recorded.sizes:
        body["sizes"] = dict(sorted(recorded.sizes.items()))
    return json.dumps(body, indent=1) + "\n"


def parse_digests(data: bytes, *, where: str) -> Digests:
    """`digests.json`, which may come from anywhere: only names of `MAX_BYTES`, real digests and possible sizes pass.

    Args:
        where: the file, as faults name it.

    Raises:
        CheckpointFault: it is damaged, names a file that no checkpoint has, or contradicts itself.
    """
    if len(data) > MAX_DIGESTS_BYTES:
        raise CheckpointFault(f"{where} has {len(data):,} bytes, more than the {MAX_DIGESTS_BYTES:,} allowed")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise CheckpointFault(f"{where} is damaged: it is not valid JSON") from fault
    files, checkpoint, sizes = (body.get(key) if isinstance(body, dict) else None for key in _KEYS)
    sizes = {} if sizes is None else sizes
    if not isinstance(files, dict) or not isinstance(sizes, dict) or not files:
        raise CheckpointFault(f"{where} is damaged: it lists no files")
    if unknown := sorted((files.keys() | sizes.keys()) - MAX_BYTES.keys()):
        raise CheckpointFault(f"{where} lists {unknown[0]!r:.200}, which is no file of a checkpoint")
    if bad := [name for name, digest in files.items() if not (isinstance(digest, str) and _SHA256.fullmatch(digest))]:
        raise CheckpointFault(f"{where} is damaged: the digest of {bad[0]} is not a SHA-256 in hexadecimal")
    if sizes and sizes.keys() != files.keys():
        raise CheckpointFault(f"{where} is damaged: it does not give the size of each of its files")
    for name, size_bytes in sizes.items():
        check_size(name, size_bytes, where=where)
    if checkpoint != digest_of_files(files):
        raise CheckpointFault(f"{where}: the checkpoint's digest is not that of the files it lists")
    return Digests(files=files, checkpoint=checkpoint, sizes=sizes)


_KEYS = ("files", "checkpoint", "sizes")


def check_size(name: str, size_bytes: object, *, where: str) -> None:
    """Raises CheckpointFault for a size that this file of a checkpoint cannot have."""
    if type(size_bytes) is not int or not 0 <= size_bytes <= MAX_BYTES[name]:
        shown = f"{size_bytes!r:.40}"
        raise CheckpointFault(f"{where}: {name} cannot have {shown} bytes, at most {MAX_BYTES[name]:,} are allowed")


def read_small(path: Path, name: str) -> str:
    """The text of a small file of a checkpoint. Raises CheckpointFault if it is larger than such files are."""
    check_size(name, path.stat().st_size, where=str(path))
    return path.read_text(encoding="utf-8")


def digests(folder: Path) -> Digests:
    """The digests that a checkpoint records. Raises CheckpointFault if it is not a converted checkpoint."""
    path = folder / DIGESTS_FILE
    try:
        with path.open("rb") as file:
            return parse_digests(file.read(MAX_DIGESTS_BYTES + 1), where=str(path))
    except FileNotFoundError:
        raise CheckpointFault(f"{folder} is not a converted checkpoint: it has no {DIGESTS_FILE}") from None
    except OSError as fault:
        raise CheckpointFault(f"{path} cannot be read: {fault.strerror}") from fault


def verify(folder: Path) -> Digests:
    """Hashes every file and compares. Raises CheckpointFault naming each damaged, missing or extra file."""
    claimed = digests(folder)
    present = set(_file_names(folder))
    faults = [f"{name} is missing" for name in sorted(claimed.files.keys() - present)]
    faults += [f"{name} is not listed in {DIGESTS_FILE}" for name in sorted(present - claimed.files.keys())]
    for name in sorted(present & claimed.files.keys()):
        size_bytes = (folder / name).stat().st_size
        if claimed.sizes.get(name, size_bytes) != size_bytes:
            faults.append(f"{name} does not match its digest: it has {size_bytes:,} bytes, not {claimed.sizes[name]:,}")
            continue
        found = sha256_of(folder / name)
        if found != claimed.files[name]:
            faults.append(f"{name} does not match its digest: {found}, not {claimed.files[name]}")
    if faults:
        raise CheckpointFault(f"{folder}: " + "; ".join(faults))
    return claimed


def _file_names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (DIGESTS_FILE, CARD_FILE))
