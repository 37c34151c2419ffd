"""Folders that appear and vanish while a local file is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def test_a_folder_that_another_process_fills_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = STORAGE.read

    def read_late(uri: str) -> bytes:
        (tmp_path / "new" / "theirs").touch()
        return read(uri)

    monkeypatch.setattr(STORAGE, "read", read_late)
    STORAGE.check_writable(str(tmp_path / "new" / "out"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_a_write_into_a_folder_that_is_just_taken_back_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makedirs = os.makedirs
    calls = []

    def make_and_lose(path: str, *, exist_ok: bool) -> None:
        makedirs(path, exist_ok=exist_ok)
        calls.append(path)
        if len(calls) == 1:
            os.rmdir(path)

    monkeypatch.setattr(os, "makedirs", make_and_lose)
    STORAGE.write(f"{tmp_path}/out/x", b"1")
    assert (STORAGE.read(f"{tmp_path}/out/x"), len(calls)) == (b"1", 2)
