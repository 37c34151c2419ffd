"""The wheel that travels is this very package: the same files, the same code version, equal bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.patience import HANGS_S
from unipic.pipeline.code_version import code_digest, code_version
from unipic.pipeline.submission.wheel import build_wheel

FACTS = """
from importlib.metadata import version
import unipic
from unipic.pipeline.code_version import code_digest, code_version
print(unipic.__file__, version("unipic-batch"), code_version(), code_digest(), sep="\\n")
"""


def test_the_package_in_the_wheel_has_the_code_version_of_the_machine_it_comes_from(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(tmp_path / "there")
    done = subprocess.run(
        [sys.executable, "-c", FACTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "there")},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=True,
    )
    place, _, version, digest = done.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path / "there")
    assert (version, digest) == (code_version(), code_digest())


def test_a_wheel_that_was_changed_on_its_way_has_a_code_version_of_its_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(tmp_path / "there")
    with (tmp_path / "there" / "unipic" / "pipeline" / "run.py").open("a") as file:
        file.write("# changed\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "there")}
    done = subprocess.run(
        [sys.executable, "-c", FACTS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[2] not in ("", code_version())


def test_equal_packages_are_equal_bytes_that_name_no_dependency_for_an_installer_to_fetch(tmp_path: Path) -> None:
    first, second = (build_wheel(folder) for folder in (tmp_path / "a", tmp_path / "b") if folder.mkdir() is None)
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())
    with zipfile.ZipFile(first) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        assert b"Requires-Dist" not in wheel.read(metadata)
        assert not [name for name in wheel.namelist() if "__pycache__" in name or not name.startswith("unipic")]
