"""`make chaos RUNS=200 OVERLAPS=300 REAL=25 SEED=1`: drills in numbers, and the table of what came of them.

`--runs` drills without Ray begin at `--seed`. So do `--overlaps` schedules of processes that are frozen and woken while
others redo, prune and retry; half of them on a store without conditional puts, the others on one with them and on a
local disk by turns. So do `--real` drills with Ray, kill -9 and a real S3 server.
Exit 1 where a promise broke; each broken drill is printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.drill import Verdict, drill
from tests.chaos.overlap_drill import overlap_drill
from tests.chaos.real import real_drill
from tests.servers import ENV, moto_s3, rclone_s3

SAY_EVERY_S = 10.0
OVERLAPS_AT_ONCE = 6  # they wait for clocks most of their time
COUNTED = (
    "lives",
    "rows",
    "rows_lost",
    "rows_doubled",
    "parts_that_differ",
    "rows_redone",
    "green_with_work_missing",
)


@dataclass
class Total:
    """What all drills of one sort came to."""

    name: str
    repeat: str
    runs: int = 0
    lives: int = 0
    rows: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    parts_that_differ: int = 0
    rows_redone: int = 0
    green_with_work_missing: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[int] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.faults.update(verdict.faults)
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        if not verdict.ok:
            self.broken.append(verdict.seed)
            print(f"BROKEN, repeat with: make chaos {self.repeat.format(seed=verdict.seed)}")
            for line in verdict.broken[:20]:
                print(f"    {line}")

    def table(self) -> str:
        numbers = [
            ("runs", self.runs),
            ("starts", self.lives),
            ("faults", self.faults.total()),
            ("rows", self.rows),
            ("rows lost", self.rows_lost),
            ("rows doubled", self.rows_doubled),
            ("parts that differ", self.parts_that_differ),
            ("rows redone", self.rows_redone),
            ("runs green with work missing", self.green_with_work_missing),
            ("broken drills", len(self.broken)),
        ]
        faults = [(f"  {kind}", times) for kind, times in sorted(self.faults.items())]
        lines = [f"{name:<48}{number:>10,}" for name, number in [*numbers, *faults]]
        return "\n".join([self.name, *lines, ""])


def each(total: Total, count: int, seed: int, one: Callable[[int, Path], Verdict], *, at_once: int = 1) -> Total:
    """Run `count` drills from `seed` on, telling how it goes."""
    said_at = time.monotonic()

    def run(at: int) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="chaos") as folder:
            try:
                return one(at, Path(folder))
            except Exception:  # a drill that breaks is a finding like another, and the others go on
                return Verdict(at, broken=[traceback.format_exc()])

    with ThreadPoolExecutor(at_once) as pool:
        for done in as_completed([pool.submit(run, at) for at in range(seed, seed + count)]):
            said_at = _add(total, done.result(), count, said_at)
    return total


def _add(total: Total, verdict: Verdict, count: int, said_at: float) -> float:
    """Count a drill; returns when something was last printed."""
    total.add(verdict)
    if time.monotonic() - said_at <= SAY_EVERY_S and total.runs < count:
        return said_at
    wrong = f"{total.rows_lost} rows lost, {total.rows_doubled} doubled, {total.parts_that_differ} differ"
    ended = f"{total.green_with_work_missing} green with work missing, {len(total.broken)} broken"
    print(f"{total.name}: {total.runs} of {count} runs, {total.faults.total()} faults, {wrong}, {ended}", flush=True)
    return time.monotonic()


def _overlaps(count: int, seed: int) -> Total:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto's, a line a request
    total = Total("overlapping processes", "RUNS=0 REAL=0 OVERLAPS=1 SEED={seed}")
    with tempfile.TemporaryDirectory(prefix="s3") as folder, rclone_s3(Path(folder)) as weak, moto_s3() as strong:

        def one(seed: int, root: Path) -> Verdict:
            server = weak if seed % 2 == 0 else strong if seed % 4 == 1 else None
            if server is None:
                return overlap_drill(seed, root, str(root / "out"), {})
            return overlap_drill(seed, root, f"{server.bucket()}/out", {"endpoint_url": server.endpoint_url})

        return each(total, count, seed, one, at_once=OVERLAPS_AT_ONCE)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Seeded faults, restarts until done, and what is held afterwards.")
    parser.add_argument("--runs", type=int, default=200, help="drills without Ray")
    parser.add_argument("--overlaps", type=int, default=0, help="schedules of overlapping processes over real stores")
    parser.add_argument("--real", type=int, default=0, help="drills with Ray, kill -9 and a real S3 server")
    parser.add_argument("--seed", type=int, default=1, help="of the first drill")
    asked = parser.parse_args(arguments)
    os.environ.update({**ENV, "RAY_AUTH_MODE": "disabled"})
    totals = []
    if asked.runs:
        here = Total("without Ray", "RUNS=1 OVERLAPS=0 REAL=0 SEED={seed}")
        totals.append(each(here, asked.runs, asked.seed, drill))
    if asked.overlaps:
        totals.append(_overlaps(asked.overlaps, asked.seed))
    if asked.real:
        with tempfile.TemporaryDirectory(prefix="s3") as folder, rclone_s3(Path(folder)) as server:
            real = Total("real Ray, kill -9, S3", "RUNS=0 OVERLAPS=0 REAL=1 SEED={seed}")
            totals.append(each(real, asked.real, asked.seed, lambda seed, root: real_drill(seed, root, server)))
    print()
    for total in totals:
        print(total.table())
    return 1 if any(total.broken for total in totals) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
