"""What a checkout holds: nothing of the machines it was written on, and tests where one looks for them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

REGISTRIES = re.compile(r"(?i)\b(?:(?:extra-)?index-url|trusted-host|find-links|pypi\.|/simple/|artifactory|nexus\.)")
"""A registry is the business of whoever installs, in their own configuration."""
MACHINES = re.compile(r"(?<![\w.{}])/(?:work|root|home/\w+|Users/\w+|mnt/\w+)/")
"""Folders of one machine."""
CREDENTIALS = re.compile(
    r"\b(?:AKIA(?!\w*(?:CANARY|EXAMPLE))[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{34})\b"
)
WHOLE_ROOMS = {"chaos", "e2e", "parity"}
"""Folders of tests/ whose promises are of several rooms at once."""


def committed() -> Iterator[tuple[Path, str]]:
    """The text files under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            yield path.relative_to(ROOT), data.decode(errors="replace")


@pytest.mark.parametrize("forbidden", [REGISTRIES, MACHINES, CREDENTIALS], ids=["registry", "machine", "credential"])
def test_no_committed_file_names_a_registry_a_machine_or_a_credential(forbidden: re.Pattern[str]) -> None:
    found = [
        f"{path}:{number} {line.strip()[:120]}"
        for path, text in committed()
        if path != Path("tests/test_repository.py")
        for number, line in enumerate(text.splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_tests_lie_where_the_rooms_lie() -> None:
    astray = [
        str(folder.relative_to(ROOT))
        for folder in {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
        if (parts := folder.relative_to(ROOT / "tests").parts) and parts[0] not in WHOLE_ROOMS
        if not ROOT.joinpath(*parts).is_dir()
    ]
    assert astray == []


def test_every_folder_of_tests_is_a_package() -> None:
    bare = {path.parent for path in (ROOT / "tests").rglob("*.py")} - {
        path.parent for path in (ROOT / "tests").rglob("__init__.py")
    }
    assert bare == set()
