"""Wherever a process dies in a unit's life, the same command ends with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline import crashpoints
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.storage.storage import Storage


class Died(BaseException):
    """The process is gone."""

    def __str__(self) -> str:
        return "died"


@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_point_loses_nothing_doubles_nothing_and_changes_no_byte(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b", "", "d", "e", None, "g", "h", "i", "j"])
    calm = make_job(tmp_path, output={"uri": str(tmp_path / "out"), "images": "files"})
    run_here(calm)
    undisturbed = part_bytes(calm)
    for path in sorted(Path(calm.output.uri).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()

    points = tmp_path / "points"
    points.mkdir()
    (points / point).touch()
    monkeypatch.setenv(crashpoints.VARIABLE, str(points))

    def die() -> None:
        raise Died

    monkeypatch.setattr(crashpoints, "die", die)
    with pytest.raises(Died, match="died"):
        run_here(calm)
    redone = run_here(calm)
    assert part_bytes(calm) == undisturbed
    assert verify(calm.output.uri, Storage(calm.storage)).ok
    assert redone == (1 if point in ("commit.after_receipt", "commit.after_publish") else 2)
