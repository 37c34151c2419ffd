"""A sealed output proves that nothing changed since, to whoever kept its digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import data_parts, plan_of, tree
from tests.fakes import receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.repair import clear
from unipic.pipeline.audit.report import Report
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.layout import SEAL, receipt_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.seal import Seal, seal, seal_again
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage


def sealed_output(job: Job) -> Seal:
    return seal(Ledger(job.output.uri, Storage()))


def audited(job: Job, digest: str = "") -> Report:
    return verify(job.output.uri, Storage(), digest=digest)


def forge_a_receipt(job: Job) -> None:
    """Change what no audit can check, and give the receipt the digest of its new content."""
    path = Path(job.output.uri, receipt_path(receipts(job)[1].unit))
    value = unsealed(path.read_text())
    path.write_text(sealed({**value, "facts": {**value["facts"], "host": "elsewhere"}}))


def test_a_sealed_output_is_sound_and_its_digest_is_the_one_that_verify_computes(finished: Job) -> None:
    before = audited(finished)
    made = sealed_output(finished)
    assert before.digest == made.digest and before.seal == ""
    report = audited(finished, made.digest.upper())
    assert report.ok and report.seal == "intact"
    assert (made.epoch, made.receipts) == (1, 3)
    assert status(finished.output.uri, Storage()).seal == "sealed"


def test_a_seal_made_twice_is_the_same_file(finished: Job) -> None:
    sealed_output(finished)
    before = tree(finished)
    sealed_output(finished)
    assert tree(finished) == before


def test_a_forged_receipt_that_nothing_else_can_tell_breaks_the_seal(finished: Job) -> None:
    digest = sealed_output(finished).digest
    forge_a_receipt(finished)
    assert audited(finished).counts == {"broken seal": 1}
    report = audited(finished, digest)
    assert report.verdict == "damaged" and report.counts == {"broken seal": 2}


def test_who_seals_a_forged_output_again_fools_only_those_who_kept_no_digest(finished: Job) -> None:
    digest = sealed_output(finished).digest
    forge_a_receipt(finished)
    sealed_output(finished)
    assert audited(finished).ok
    assert audited(finished, digest).counts == {"broken seal": 1}


def test_the_digest_alone_proves_as_much_where_seal_json_is_gone(finished: Job) -> None:
    digest = sealed_output(finished).digest
    Path(finished.output.uri, SEAL).unlink()
    assert audited(finished, digest).ok
    forge_a_receipt(finished)
    assert audited(finished, digest).counts == {"broken seal": 1}


def test_a_receipt_taken_away_from_a_sealed_output_is_damage_and_not_work_that_is_left(finished: Job) -> None:
    sealed_output(finished)
    Path(finished.output.uri, receipt_path(receipts(finished)[1].unit)).unlink()
    assert audited(finished).verdict == "damaged"


def test_a_retry_makes_the_seal_outdated_and_the_output_stays_sound(flaky: Job, tmp_path: Path) -> None:
    run_here(flaky)
    digest = sealed_output(flaky).digest
    (tmp_path / "mended").touch()
    retry_here(flaky)
    check_outdated(flaky, digest)


def test_a_new_manifest_file_makes_the_seal_outdated_and_the_output_stays_sound(finished: Job) -> None:
    digest = sealed_output(finished).digest
    write_prompts(Path(finished.input.manifest) / "new.parquet", ["one more"])
    run_here(finished)
    check_outdated(finished, digest)


def check_outdated(job: Job, digest: str) -> None:
    report = audited(job)
    assert report.ok and report.seal == "outdated"
    assert status(job.output.uri, Storage()).seal == "changed since it was sealed"
    told = audited(job, digest)
    assert told.verdict == "damaged" and "changed since it was sealed: epoch 1, " in told.problems[0].message
    assert audited(job, sealed_output(job).digest).seal == "intact"


def test_a_part_that_repair_restores_leaves_the_seal_intact(finished: Job) -> None:
    digest = sealed_output(finished).digest
    before = tree(finished)
    data_parts(finished)[0].write_bytes(b"?")
    report, plan = plan_of(finished)
    clear(finished.output.uri, Storage(), report, plan)
    run_here(finished, again=plan.restored)
    assert audited(finished, digest).ok
    assert tree(finished) == before


def test_a_damaged_seal_is_named_and_status_still_answers(finished: Job) -> None:
    digest = sealed_output(finished).digest
    Path(finished.output.uri, SEAL).write_text("{")
    report = audited(finished, digest)
    assert report.counts == {"altered record": 1}
    assert "seal.json is damaged: invalid JSON" in report.problems[0].message
    assert status(finished.output.uri, Storage()).seal == "seal.json is damaged"


def test_a_job_that_seals_its_output_seals_it_when_it_changed_and_says_why_it_could_not(finished: Job) -> None:
    ledger = Ledger(finished.output.uri, Storage())
    digest = audited(finished).digest
    assert seal_again(ledger) == f"the output is sealed: {digest}"
    forge_a_receipt(finished)
    assert seal_again(ledger) == f"the output is sealed: {digest}", "no run added to it"
    write_prompts(Path(finished.input.manifest) / "new.parquet", ["one more"])
    run_here(finished)
    newer = seal_again(Ledger(finished.output.uri, Storage()))
    assert newer == f"the output is sealed: {audited(finished).digest}" != f"the output is sealed: {digest}"
    Path(finished.output.uri, SEAL).write_text("{")
    assert seal_again(ledger).startswith("the output is not sealed: ")


def test_an_unfinished_output_is_not_sealed(finished: Job) -> None:
    Path(finished.output.uri, receipt_path(receipts(finished)[1].unit)).unlink()
    with pytest.raises(OutputError, match="is not finished: 1 of 3 units have no receipt"):
        sealed_output(finished)


def test_an_output_with_a_damaged_receipt_is_not_sealed(finished: Job) -> None:
    Path(finished.output.uri, receipt_path(receipts(finished)[1].unit)).write_text("{")
    with pytest.raises(OutputError, match="is damaged: invalid JSON at line 1"):
        sealed_output(finished)


def test_an_output_that_a_run_is_writing_is_not_sealed(finished: Job) -> None:
    with (
        presence(Ledger(finished.output.uri, Storage()), warn=print),
        pytest.raises(JobError, match="another run is active in"),
    ):
        sealed_output(finished)


def test_what_is_no_digest_is_refused(finished: Job) -> None:
    with pytest.raises(JobError, match="'abc' is not the digest of a seal: it must have 64 hex digits"):
        audited(finished, "abc")
