"""`unipic replay`: the files that it compares with and writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unipic.pipeline.job import Job

Command = Callable[..., tuple[int, str, str]]


def test_replay_says_which_file_it_cannot_compare_with_or_write_to(
    job: Job, tmp_path: Path, command: Command, fake_model: None
) -> None:
    code, _, err = command("replay", job.output.uri, "a-3", "--against", tmp_path / "none.png")
    assert code == 1 and "none.png' does not exist" in err
    code, _, err = command("replay", job.output.uri, "a-3", "--save", tmp_path / "none" / "again.png")
    assert code == 1 and "again.png: the folder" in err
    (tmp_path / "text.png").write_text("no picture")
    code, _, err = command("replay", job.output.uri, "a-3", "--against", tmp_path / "text.png")
    assert code == 1 and "what the row is compared with is no picture" in err
    code, out, _ = command("replay", job.output.uri, "a-3", "--save", tmp_path / "again.png")
    assert code == 0 and "identical" in out and (tmp_path / "again.png").exists()
