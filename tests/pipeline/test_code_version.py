"""The code version: a commit, a changed commit, or a digest of the installed sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unipic.pipeline.code_version import code_version, version_of


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for room in ("model", "pipeline", "jobs"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "code.py").write_text("x = 1\n")
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(package: Path) -> str:
    git(package, "init", "--quiet")
    git(package, "add", ".")
    git(package, "commit", "--quiet", "--message", "first")
    return git(package, "rev-parse", "HEAD")


def test_a_clean_checkout_is_its_commit(package: Path) -> None:
    commit = committed(package)
    (package / "notes.txt").write_text("what no row depends on")
    assert version_of(package, "1.2.3") == f"1.2.3+g{commit[:12]}"


def test_a_changed_checkout_is_its_commit_and_a_digest_of_what_changed(package: Path) -> None:
    commit = committed(package)
    seen = set()
    for name, text in (("code.py", "x = 2\n"), ("code.py", "x = 3\n"), ("new.py", "y = 1\n")):
        (package / "pipeline" / name).write_text(text)
        found = version_of(package, "1.2.3")
        assert found.startswith(f"1.2.3+g{commit[:12]}.dirty.")
        seen.add(found)
    assert len(seen) == 3


def test_an_installed_package_is_a_digest_of_its_sources_wherever_it_is(package: Path) -> None:
    before = version_of(package, "1.2.3")
    assert before.startswith("1.2.3+wheel.")
    assert version_of(package.rename(package.with_name("elsewhere")), "1.2.3") == before
    (package.with_name("elsewhere") / "jobs" / "code.py").write_text("x = 2\n")
    assert version_of(package.with_name("elsewhere"), "1.2.3") != before


def test_a_checkout_without_commits_or_git_is_a_digest_of_its_sources(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(package, "init", "--quiet")
    assert version_of(package, "1.2.3").startswith("1.2.3+source.")
    monkeypatch.setenv("PATH", "")
    assert version_of(package, "1.2.3").startswith("1.2.3+source.")


def test_the_running_code_has_one_version_in_a_process() -> None:
    assert code_version() == code_version() and "+" in code_version()
