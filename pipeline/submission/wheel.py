"""This very package as a wheel, from a checkout or an installation, without a network and without a build tool.

It names no dependencies, because the nodes' installer would fetch them: a cluster's nodes have Ray and PyTorch, and the
run compares their versions with the driver's.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unipic.pipeline.code_version import STATED, code_version, stated

NAME = "unipic_batch"
ROOMS = ("model", "pipeline", "jobs", "configs")
WRITTEN = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold, so that equal packages are equal files
LEFT_OUT = {"__pycache__"}


def build_wheel(folder: Path) -> Path:
    """Write the wheel into `folder`; equal packages give equal bytes."""
    release = _release()
    info = f"{NAME}-{release}.dist-info"
    files = dict(_package())
    files[f"unipic/{STATED}"] = stated(code_version()).encode()
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: unipic-batch\nVersion: {release}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: unipic\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    # Ray takes a wheel's name for its content, so the name has to tell it (as a build tag, which begins with a digit).
    path = folder / f"{NAME}-{release}-1_{hashlib.sha256(record.encode()).hexdigest()[:12]}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, WRITTEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return path


def _package() -> Iterator[tuple[str, bytes]]:
    """(name in the wheel, content) of each file of the package."""
    import unipic

    face = Path(unipic.__file__).parent
    for path in sorted(face.iterdir()):
        if path.is_file():
            yield f"unipic/{path.name}", path.read_bytes()
    for room in ROOMS:
        root = (face / room).resolve()  # in a checkout the rooms are links
        for path in sorted(root.rglob("*")):
            if path.is_file() and not LEFT_OUT & set(path.parts):
                yield f"unipic/{room}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _release() -> str:
    try:
        return version("unipic-batch")
    except PackageNotFoundError:
        return "0"
