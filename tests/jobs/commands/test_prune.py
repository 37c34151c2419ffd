"""`unipic prune`: it lists before it removes, and never removes a whole output for a wrong pattern."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.damage import prompts, tree, two_files
from unipic.jobs import cli
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage

Prune = Callable[..., tuple[int, str, str]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return two_files(tmp_path)


@pytest.fixture
def prune(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Prune:
    """The command on `job`: its exit code and what it said."""
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True) | {"task": job.task}))

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"^\d$") as ended:
            cli.main(["prune", str(file), *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_prune_lists_first_and_removes_with_yes_only(job: Job, tmp_path: Path, prune: Prune) -> None:
    assert prune() == (0, "nothing to remove: the manifest still has every file of this output\n", "")
    (tmp_path / "manifest" / "b.parquet").unlink()
    before = tree(job)
    assert prune() == (0, "b.parquet: outputs of 10 rows\nnothing was removed; pass --yes to remove them\n", "")
    assert tree(job) == before
    assert prune("--yes") == (0, "b.parquet: outputs of 10 rows removed\n", "")
    report = verify(job.output.uri, Storage())
    assert report.ok and report.rows == 10


def test_a_manifest_without_any_of_the_files_removes_nothing(job: Job, tmp_path: Path, prune: Prune) -> None:
    prompts(tmp_path / "other", "c")
    before = tree(job)
    for yes in ([], ["--yes"]):
        code, out, err = prune("--set", f"input.manifest={tmp_path}/other/manifest/*.parquet", *yes)
        assert (code, out) == (1, "")
        assert "the manifest has none of the 2 manifest files of" in err and "(a.parquet, b.parquet)" in err
        assert "Check input.manifest." in err
    assert tree(job) == before


def test_nothing_is_removed_while_another_run_is_active(job: Job, tmp_path: Path, prune: Prune) -> None:
    (tmp_path / "manifest" / "b.parquet").unlink()
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        before = tree(job)
        code, out, err = prune("--yes")
        assert (code, out) == (1, "") and "another run is active in" in err and tree(job) == before
    assert prune("--yes")[0] == 0
