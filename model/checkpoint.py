"""Converted checkpoints: their files and digests.

A converted checkpoint holds `config.json`, `weights.safetensors`, `vae.safetensors`, `tokenizer/` and `digests.json`.
Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.json"
DIGESTS_FILE = "digests.json"
CARD_FILE = "README.md"  # a text for people; it may contain the digest
TOKENIZER_FOLDER = "tokenizer"
WEIGHTS_FILE = "weights.safetensors"
VAE_FILE = "vae.safetensors"

_HASH_CHUNK_BYTES = 1 << 20


class CheckpointFault(ValueError):
    """A checkpoint that cannot be used: damaged, incomplete or inconsistent. A retry never helps."""


@dataclass(frozen=True)
class Digests:
    """`files`: relative POSIX path → SHA-256 in hexadecimal; `checkpoint`: one digest of all of them."""

    files: dict[str, str]
    checkpoint: str


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
    """Hash every file of a finished checkpoint and write `digests.json`."""
    files = {name: sha256_of(folder / name) for name in _file_names(folder)}
    digests_ = Digests(files=files, checkpoint=digest_of_files(files))
    body = {"checkpoint": digests_.checkpoint, "files": dict(sorted(files.items()))}
    (folder / DIGESTS_FILE).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return digests_


def digests(folder: Path) -> Digests:
    """The digests that a checkpoint records. Raises CheckpointFault if it is not a converted checkpoint."""
    path = folder / DIGESTS_FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        claimed = Digests(files=dict(body["files"]), checkpoint=str(body["checkpoint"]))
    except FileNotFoundError:
        raise CheckpointFault(f"{folder} is not a converted checkpoint: it has no {DIGESTS_FILE}") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise CheckpointFault(f"{path} cannot be read: {fault!r}") from fault
    if claimed.checkpoint != digest_of_files(claimed.files):
        raise CheckpointFault(f"{path}: the checkpoint's digest is not that of the files it lists")
    return claimed


def verify(folder: Path) -> Digests:
    """Hashes every file and compares. Raises CheckpointFault naming each damaged, missing or extra file."""
    claimed = digests(folder)
    present = set(_file_names(folder))
    faults = [f"{name} is missing" for name in sorted(claimed.files.keys() - present)]
    faults += [f"{name} is not listed in {DIGESTS_FILE}" for name in sorted(present - claimed.files.keys())]
    for name in sorted(present & claimed.files.keys()):
        found = sha256_of(folder / name)
        if found != claimed.files[name]:
            faults.append(f"{name} does not match its digest: {found}, not {claimed.files[name]}")
    if faults:
        raise CheckpointFault(f"{folder}: " + "; ".join(faults))
    return claimed


def _file_names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (DIGESTS_FILE, CARD_FILE))
