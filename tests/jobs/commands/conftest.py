"""Commands in this process, on small finished outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.damage import two_files
from tests.fakes import FakeEngine
from unipic.jobs import cli
from unipic.pipeline.audit.replay import Replayer
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Two manifest files, 10 rows and two units each."""
    return two_files(tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command: its exit code, what it printed, and its messages on one line."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d") as ended:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        assert "This is a bug in UniPic Batch" not in said.err
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, " ".join(said.err.split())

    return run


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands replay with the engine that made the rows."""
    begin = Replayer.__init__

    def with_fake(self: Replayer, output_uri: str, storage: Storage, **_: object) -> None:
        begin(self, output_uri, storage, make_engine=FakeEngine)

    monkeypatch.setattr(Replayer, "__init__", with_fake)
