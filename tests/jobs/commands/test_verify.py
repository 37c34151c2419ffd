"""`unipic verify`: what it prints, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.damage import (
    damage_receipt,
    data_parts,
    manifest_moves,
    miscount,
)
from unipic.pipeline.job import Job


def test_a_file_at_the_root_that_repair_leaves_is_said_to_be_the_users_to_move(
    job: Job, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = Path(job.output.uri, ".DS_Store")
    stray.touch()
    told = ".DS_Store: belongs to no receipt; move it away: --repair moves only files inside data/, rejected/, images/"
    for repair_too in ([], ["--repair"]):
        code, out, _ = command("verify", job.output.uri, *repair_too)
        assert code == 1 and told in out and "--repair would" not in out and stray.exists()
    stray.rename(Path(job.output.uri, "data", "large"))
    Path(job.output.uri, "data", "large").write_bytes(b"12345")
    monkeypatch.setattr("unipic.pipeline.audit.files.SET_ASIDE_MAX_BYTES", 4)
    code, out, _ = command("verify", job.output.uri, "--repair")
    assert code == 1 and "data/large: belongs to no receipt; move it away: it is larger than" in out
    monkeypatch.undo()
    assert command("verify", job.output.uri, "--repair")[0] == 0


def test_an_unsound_report_ends_with_what_repair_would_do(job: Job, command: Command) -> None:
    miscount(job, "a.parquet")
    Path(job.output.uri, "data", "notes.txt").touch()
    staged = data_parts(job)[-2]
    attempt = Path(job.output.uri, "_unipic", "staging", f"{staged.stem.removeprefix('part-')}-0123456789ab", "data")
    attempt.mkdir(parents=True)
    (attempt / staged.name).write_bytes(staged.read_bytes())
    code, out, _ = command("verify", job.output.uri)
    would = "run 1 unit again, move 1 file to _unipic/set-aside, publish or delete 1 file of earlier attempts"
    assert code == 1 and out.endswith(f"\n  --repair would {would}\n")
    code, out, _ = command("verify", job.output.uri, "--json")
    assert code == 1 and json.loads(out)["counts"] == {"row count": 2, "unexpected file": 1, "left-over file": 1}


Command = Callable[..., tuple[int, str, str]]


def test_verify_prints_its_report_and_names_what_it_leaves_before_and_after_a_repair(
    job: Job, tmp_path: Path, command: Command
) -> None:
    unit = damage_receipt(job)
    manifest_moves(tmp_path, job)
    code, out, err = command("verify", job.output.uri, "--repair", "--replay", 3)
    assert code == 1 and out.count("damaged receipt: 1") == 2 and "cannot be replayed: " in out
    assert "1 damaged unit unchanged: run.json's job cannot make them again: There is no manifest at" in err
    code, out, _ = command("verify", job.output.uri, "--json")
    assert code == 1 and json.loads(out)["damaged_units"] == [unit]


def test_verify_replays_rows_of_sound_units_alone(job: Job, command: Command, fake_model: None) -> None:
    part = data_parts(job)[0]
    part.write_bytes(part.read_bytes()[:100])
    data_parts(job)[1].rename(Path(job.output.uri, "data", "part-copy.parquet"))
    pq.write_table(pa.table({"x": [1]}), Path(job.output.uri, "data", "other.parquet"))
    code, out, _ = command("verify", job.output.uri, "--replay", 30)
    assert code == 1 and "altered part: 1" in out and "missing part: 1" in out and "unexpected file: 2" in out
    assert "replayed" not in out


def test_a_sealed_output_is_held_against_the_digest_that_was_printed(job: Job, command: Command) -> None:
    code, out, _ = command("seal", job.output.uri)
    digest = out.split()[-1]
    assert code == 0 and out == f"{job.output.uri}: sealed with 4 receipts\n{digest}\n"
    assert json.loads(command("seal", job.output.uri, "--json")[1])["digest"] == digest
    code, out, _ = command("verify", job.output.uri, "--seal", digest)
    assert code == 0 and f"\n  sealed: {digest}\n" in out
    assert "  seal      sealed\n" in command("status", job.output.uri)[1]
    wrong = "0" * 64
    code, out, _ = command("verify", job.output.uri, "--seal", wrong)
    assert code == 1 and f"the digest of this output is {digest}, not {wrong}" in out


def test_compacting_a_sealed_output_says_that_it_needs_a_new_seal(job: Job, command: Command) -> None:
    assert command("seal", job.output.uri)[0] == 0
    changed = "  changed since it was sealed; `unipic seal` makes a new seal\n"
    assert command("compact", job.output.uri)[1].endswith(f" in 1 new file\n{changed}")
    assert changed in command("verify", job.output.uri)[1]


def test_an_output_is_compacted_once_and_stays_sound(job: Job, command: Command) -> None:
    code, out, _ = command("compact", job.output.uri)
    assert code == 0 and out == f"{job.output.uri}: 4 data files merged into 1; 4 units in 1 new file\n"
    assert command("compact", job.output.uri)[1] == f"{job.output.uri}: nothing to merge; 1 data file\n"
    assert json.loads(command("compact", job.output.uri, "--json")[1])["packs"] == 0
    code, out, _ = command("verify", job.output.uri)
    assert code == 0 and ": sound; " in out
