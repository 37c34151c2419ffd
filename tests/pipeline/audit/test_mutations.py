"""Any change to a finished output is found, or is named here as harmless."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.output.compaction import compact
from unipic.pipeline.output.layout import EVENTS, REPORTS, RUNNING, SEAL, SET_ASIDE, WITHDRAWN
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.seal import seal
from unipic.pipeline.storage.storage import Storage

HARMLESS = (EVENTS, RUNNING, REPORTS, SET_ASIDE, WITHDRAWN)
"""Notes for people and catalogues. No row, count or digest is read from them.

Nor does the audit need `seal.json`, which may be removed: the digest that was kept elsewhere proves what it proves.
"""

ROWS_PER_UNIT = 4
Mutation = Callable[[Path, Path, random.Random], None]


def flip_a_byte(file: Path, _: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def remove(file: Path, _: Path, chance: random.Random) -> None:
    file.unlink()


def truncate(file: Path, _: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def append(file: Path, _: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes() + chance.randbytes(chance.randint(1, 9)))


def swap(file: Path, other: Path, chance: random.Random) -> None:
    ours, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(ours)


def copy_over(file: Path, other: Path, chance: random.Random) -> None:
    other.write_bytes(file.read_bytes())


def copy_beside(file: Path, other: Path, chance: random.Random) -> None:
    """Under another name of the same kind, such as that of another unit, row or epoch."""
    name = file.name
    digits = [at for at, letter in enumerate(name.split(".")[0]) if letter.isdigit()]
    at = chance.choice(digits) if digits else 0
    beside = file.with_name(f"{name[:at]}{(int(name[at]) + 1) % 10 if digits else 'x'}{name[at + 1 :]}")
    beside.write_bytes(file.read_bytes())


def move_elsewhere(file: Path, other: Path, chance: random.Random) -> None:
    file.rename(other.with_name(file.name + ".moved"))


MUTATIONS: list[Mutation] = [flip_a_byte, remove, truncate, append, swap, copy_over, copy_beside, move_elsewhere]


def finished(root: Path, kind: str) -> Job:
    """An output with everything in it: images beside it or inside, rejected rows, a retry, a redo; or captions."""
    mark = root / "mark"
    write_prompts(root / "manifest" / "a.parquet", ["one", "", f"flaky {mark}", *(f"p {n}" for n in range(9))])
    write_prompts(root / "manifest" / "b.parquet", ["x", "y", None])
    images = "files" if kind == "beside" else "inline"
    job = make_job(root, output__images=images, compute__rows_per_unit=ROWS_PER_UNIT, params__samples_per_row=2)
    run_here(job)
    mark.touch()
    retry_here(job)
    write_prompts(root / "manifest" / "b.parquet", ["x", "new", None, "z"])
    run_here(job, redo_changed=True)
    if kind == "merged":
        compact(Ledger(job.output.uri, Storage()))
        write_prompts(root / "manifest" / "c.parquet", ["later", "", "later still"])
        run_here(job)
    if kind != "captions":
        return job
    columns = {"id": "id", "image": "image"}
    manifest = {"manifest": f"{job.output.uri}/data", "columns": columns}
    captions = make_job(root, "caption", input=manifest, output__uri=str(root / "captions"), params={"image_size": 16})
    run_here(captions)
    return captions


def check_found(job: Job, rounds: int, seed: int, scratch: Path) -> Counter[str]:
    """Mutate a copy of the output `rounds` times; returns how often each mutation was found."""
    output, whole = Path(job.output.uri), scratch / "whole"
    digest = seal(Ledger(job.output.uri, Storage())).digest
    shutil.copytree(output, whole)
    assert verify(job.output.uri, Storage(), digest=digest).verdict == "sound"
    chance = random.Random(seed)
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    found: Counter[str] = Counter()
    for number in range(rounds):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        name, other = chance.sample(files, 2)
        mutate(output / name, output / other, chance)
        now = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
        changed = {path for path in {*now, *files} if now.get(path) != _stored(whole / path)}
        if any(not str(path).startswith(HARMLESS) for path in changed):
            verdict = verify(job.output.uri, Storage(), digest=digest).verdict
            assert verdict != "sound" or (mutate is remove and name == Path(SEAL)), (
                f"{mutate.__name__} of {name} with {other}: {sorted(map(str, changed))}"
            )
            found[mutate.__name__] += 1
        for path in changed:
            data = _stored(whole / path)
            (output / path).unlink(missing_ok=True) if data is None else (output / path).write_bytes(data)
    assert verify(job.output.uri, Storage()).verdict == "sound"
    return found


def _stored(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize("kind", ["inside", "beside", "merged", "captions"])
def test_a_sample_of_changes_to_a_finished_output_is_found(tmp_path: Path, kind: str) -> None:
    assert sum(check_found(finished(tmp_path, kind), 40, 1, tmp_path).values()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inside", "beside", "merged", "captions"])
def test_seven_hundred_changes_of_every_kind_to_a_finished_output_are_found(tmp_path: Path, kind: str) -> None:
    found = check_found(finished(tmp_path, kind), 704, 7, tmp_path)
    assert found.keys() == {mutate.__name__ for mutate in MUTATIONS}
