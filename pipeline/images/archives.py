"""Archives and pickles, by name and by first bytes: what a manifest or an image never is, and is never opened."""

from __future__ import annotations

_BY_NAME = {
    (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"): "a tar archive",
    (".zip", ".7z", ".rar"): "an archive",
    (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".npy", ".npz"): "a file of Python objects, which may run code",
}
_BY_START = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip-compressed data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\xfd7zXZ": "xz-compressed data",
    b"(\xb5/\xfd": "zstd-compressed data",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


def archive_kind(name: str) -> str:
    """What a file called so would be, such as "a tar archive"; "" for all other names."""
    lower = name.lower()
    return next((kind for endings, kind in _BY_NAME.items() if lower.endswith(endings)), "")


def archive_start(data: bytes) -> str:
    """What bytes that start so are; "" for neither an archive nor a pickle."""
    if data[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for sign, kind in _BY_START.items() if data.startswith(sign)), "")
