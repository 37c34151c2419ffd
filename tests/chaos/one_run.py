"""One run of a job in a process of its own, to be killed: `python -m tests.chaos.one_run SPEC.json [--guarded]`.

Says how far it is as JSON lines on standard output. Exit 0: done; 3: ended early, resumable; 1: another error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tests.fakes import FakeEngine
from unipic.jobs.terminal.guard import guard
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.job import AnyJob
from unipic.pipeline.run import Progress, run


class SlowEngine(FakeEngine):
    """Takes `work_s` a micro-batch, as a device would, and notes in `log` how many rows it was given each time."""

    def __init__(self, context: RunContext, *, work_s: float, log: str) -> None:
        super().__init__(context)
        self.work_s, self.log = work_s, log

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        note = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, f"{len(rows)}\n".encode())
        os.close(note)
        time.sleep(self.work_s)
        return super().answer(rows)


def say(progress: Progress) -> None:
    print(json.dumps({"stage": progress.stage, "units_done": progress.units_done}), flush=True)


def main(spec: dict[str, Any]) -> int:
    job = TypeAdapter(AnyJob).validate_python(spec["job"])
    engine = partial(SlowEngine, work_s=spec["work_s"], log=spec["log"])
    try:
        result = run(job, address=spec["address"], on_progress=say, make_engine=engine)
    except UniPicError as error:
        print(json.dumps({"stage": "error", "message": str(error)}), flush=True)
        return 3 if error.retryable else 1
    print(json.dumps({"stage": "ended", "message": f"{result.outcome}: {result.message}"}), flush=True)
    return 0 if result.outcome == "done" else 3


if __name__ == "__main__":
    state = guard() if "--guarded" in sys.argv else lambda _: None
    code = main(json.loads(Path(sys.argv[1]).read_text()))
    state(code)
    sys.exit(code)
