"""Verify and repair where something is gone, damaged or elsewhere: no sound row is lost, and each says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.damage import (
    checkpoint_changes,
    checkpoint_goes,
    damage_receipt,
    data_parts,
    manifest_changes,
    manifest_moves,
    miscount,
    pictures,
    plan_of,
    prompts,
    tree,
    two_files,
)
from tests.fakes import FakeEngine, all_rows, make_job, part_bytes, receipts
from tests.inprocess import run_here
from unipic.jobs import cli
from unipic.pipeline.audit.export import export
from unipic.pipeline.audit.repair import Redo, clear
from unipic.pipeline.audit.replay import Replayer, replay, replay_sample
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.trace import trace
from unipic.pipeline.audit.verify import LISTED, verify
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return two_files(tmp_path)


def test_an_output_whose_pictures_stand_beside_it_verifies_from_any_folder_and_wherever_it_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_here(make_job(tmp_path, output__uri="out", output__images="files"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert verify(str(tmp_path / "out"), Storage()).ok
    (tmp_path / "out").rename(tmp_path / "moved")
    assert verify("../moved", Storage()).ok
    assert replay("../moved", "a-3", Storage(), make_engine=FakeEngine).identical
    next((tmp_path / "moved" / "images").iterdir()).unlink()
    assert verify("../moved", Storage()).counts == {"missing part": 1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (manifest_moves, "There is no manifest at"),
        (manifest_changes, "manifest file a.parquet changed. Put back what was there"),
        (checkpoint_goes, "is not a checkpoint of ours"),
        (checkpoint_changes, "does not match its digest"),
    ],
)
def test_rows_that_cannot_be_made_again_are_left_where_they_are_and_it_says_why(
    job: Job, tmp_path: Path, change: Callable[[Path, Job], None], why: str
) -> None:
    unit = damage_receipt(job)
    change(tmp_path, job)
    before = tree(job)
    report, plan = plan_of(job)
    assert report.counts == {"damaged receipt": 1}
    assert plan.job is None and plan.left.keys() == {unit} and why in plan.left[unit]
    assert clear(job.output.uri, Storage(), report, plan).forgotten == 0
    assert tree(job) == before


def test_units_of_a_manifest_file_that_is_gone_are_left_and_the_others_done_again(job: Job, tmp_path: Path) -> None:
    whole = part_bytes(job)
    gone, there = miscount(job, "a.parquet"), miscount(job, "b.parquet")
    (tmp_path / "manifest" / "a.parquet").unlink()
    report, plan = plan_of(job)
    assert (plan.units, plan.files, plan.left.keys()) == ({there}, {"b.parquet"}, {gone})
    assert "the manifest file a.parquet is gone. Put it back, or drop its rows with `unipic prune`" in plan.left[gone]
    assert clear(job.output.uri, Storage(), report, plan).forgotten == 1
    assert plan.job is not None and run_here(plan.job, only=plan.files) == 1
    assert part_bytes(job) == whole
    assert verify(job.output.uri, Storage()).damaged_units == {gone}


def test_a_damaged_receipt_that_no_run_gets_past_keeps_the_other_units_from_being_forgotten(
    job: Job, tmp_path: Path
) -> None:
    there, gone = miscount(job, "b.parquet"), damage_receipt(job, "a.parquet")
    (tmp_path / "manifest" / "a.parquet").unlink()
    _, plan = plan_of(job)
    assert plan.job is None and plan.left.keys() == {gone, there}
    assert "a run of the job stops at the damaged receipt" in plan.left[there]


def test_a_unit_of_which_an_input_picture_is_gone_keeps_the_row_that_was_made_of_it(tmp_path: Path) -> None:
    job = pictures(tmp_path)
    whole = part_bytes(job)
    units = sorted(one.unit for one in receipts(job))
    for receipt in Path(job.output.uri, "_unipic", "receipts").iterdir():
        receipt.unlink()
    (tmp_path / "pics" / "3.png").unlink()
    report, plan = plan_of(job)
    assert plan.units == {units[1]} and "row 3 of" in plan.left[units[0]] and "MissingPicture" in plan.left[units[0]]
    clear(job.output.uri, Storage(), report, plan)
    assert plan.job is not None
    assert [path in part_bytes(job) for path in sorted(whole)] == [True, False]


def test_a_job_for_a_gpu_is_not_repaired_on_a_machine_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts(tmp_path)
    job = make_job(tmp_path, model__device="auto", compute__gpus_per_replica=1)
    run_here(job)
    unit = miscount(job, "a.parquet")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, plan = plan_of(job)
    assert plan.job is None and "has no CUDA device that torch can use" in plan.left[unit]


def test_every_stranger_is_set_aside_however_many_problems_there_are(job: Job) -> None:
    for n in range(LISTED + 5):
        Path(job.output.uri, "data", f"{n}.txt").touch()
    report = verify(job.output.uri, Storage())
    assert len(report.problems) == LISTED
    assert clear(job.output.uri, Storage(), report, Redo()).set_aside == LISTED + 5
    assert verify(job.output.uri, Storage()).ok


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
    monkeypatch.setattr("unipic.pipeline.audit.verify.SET_ASIDE_MAX_BYTES", 4)
    code, out, _ = command("verify", job.output.uri, "--repair")
    assert code == 1 and "data/large: belongs to no receipt; move it away: it is larger than" in out
    monkeypatch.undo()
    assert command("verify", job.output.uri, "--repair")[0] == 0


def test_an_unsound_report_ends_with_what_repair_would_do(job: Job, command: Command) -> None:
    miscount(job, "a.parquet")
    Path(job.output.uri, "data", "notes.txt").touch()
    retried = data_parts(job)[-2]
    retried.with_name(retried.name.replace(".parquet", ".retry1.parquet")).write_bytes(retried.read_bytes())
    code, out, _ = command("verify", job.output.uri)
    would = "run 1 unit again, move 1 file to _unipic/set-aside, delete 1 part of superseded attempts"
    assert code == 1 and out.endswith(f"\n  --repair would {would}\n")
    code, out, _ = command("verify", job.output.uri, "--json")
    assert code == 1 and json.loads(out)["counts"] == {"row count": 1, "unexpected file": 1, "interrupted retry": 1}


def test_an_output_given_as_a_file_address_is_the_same_output(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/out"
    job = pictures(tmp_path).model_copy(update={"output": make_job(tmp_path, output__uri=uri).output})
    row = all_rows(make_job(tmp_path))[0]["lineage"]["lineage_id"]
    assert verify(uri, Storage()).ok
    assert status(uri, Storage()).finished
    assert trace(uri, row, Storage())[0].task == "caption"
    assert replay(uri, row, Storage(), make_engine=FakeEngine).identical
    assert list(replay_sample(uri, 3, Storage(), make_engine=FakeEngine)) == []
    assert export(uri, tmp_path / "captions.csv", Storage()).rows == 10
    data_parts(make_job(tmp_path))[0].unlink()
    _, plan = plan_of(job)
    assert plan.job is not None and plan.job.output.uri == str(tmp_path / "out")


def test_a_report_names_damaged_units_in_a_sorted_list(job: Job) -> None:
    units = sorted([miscount(job, "b.parquet"), miscount(job, "a.parquet")])
    assert verify(job.output.uri, Storage()).as_dict()["damaged_units"] == units


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d") as ended:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        assert "This is a fault of UniPic Batch itself" not in said.err
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, " ".join(said.err.split())

    return run


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands replay with the engine that made the rows."""
    begin = Replayer.__init__

    def with_fake(self: Replayer, output_uri: str, storage: Storage, **_: object) -> None:
        begin(self, output_uri, storage, make_engine=FakeEngine)

    monkeypatch.setattr(Replayer, "__init__", with_fake)


def test_verify_prints_its_report_and_names_what_it_leaves_before_and_after_a_repair(
    job: Job, tmp_path: Path, command: Command
) -> None:
    unit = damage_receipt(job)
    manifest_moves(tmp_path, job)
    code, out, err = command("verify", job.output.uri, "--repair", "--replay", 3)
    assert code == 1 and out.count("damaged receipt: 1") == 2 and "cannot be replayed: " in out
    assert "1 damaged unit unchanged: run.json's job cannot do them: There is no manifest at" in err
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
