"""What a user sees while a run goes on, on a terminal and in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from unipic.jobs.terminal.formatting import as_json, count, duration, rate, size
from unipic.jobs.terminal.progress import Display, line


def progress(stage: str, **facts: object) -> SimpleNamespace:
    usual = {
        "rows_total": 1200, "rows_ok": 0, "rows_rejected": 0, "rows_earlier": 0, "rows_per_s": 0.0,
        "rows_on_the_way": 0,
        "eta_s": None, "replicas": 0, "message": "", "activity": "", "notes": (),
    }  # fmt: skip
    return SimpleNamespace(stage=stage, **(usual | facts))


def test_a_line_tells_done_rejected_rate_replicas_and_time_left() -> None:
    now = progress("running", rows_ok=97, rows_rejected=3, rows_per_s=2.5, eta_s=440.0, replicas=1)
    assert line(now) == "100 of 1,200 rows, 3 rejected, 2.5 rows/s, 1 replica, 7:20 left"


def test_rows_that_are_answered_show_before_their_unit_is_committed() -> None:
    assert line(progress("running", rows_on_the_way=12, replicas=1)).startswith(
        "0 of 1,200 rows, 12 more awaiting commit"
    )


def test_nothing_is_guessed_before_it_is_known() -> None:
    assert line(progress("running", replicas=2)) == "0 of 1,200 rows, 0.0 rows/s, 2 replicas"


def test_a_log_gets_a_line_on_each_change_of_stage_and_every_ten_seconds() -> None:
    stream, now = io.StringIO(), [100.0]
    with Display(stream, clock=lambda: now[0]) as display:
        display(progress("planning", rows_total=0))
        for second in range(25):
            now[0] = 101.0 + second
            display(progress("running", rows_ok=second))
        display(progress("done", rows_ok=1200))
    told = stream.getvalue().splitlines()
    assert [text.split(" of ")[0] for text in told] == [
        "planning",
        "running: 0",
        "running: 10",
        "running: 20",
        "done: 1,200",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_run_that_is_starting_says_what_it_waits_for_every_five_seconds() -> None:
    stream, now = io.StringIO(), [100.0]
    with Display(stream, clock=lambda: now[0]) as display:
        for second in range(12):
            now[0] = 100.0 + second
            display(progress("starting", activity=f"starting Ray, {second} s"))
    assert stream.getvalue().splitlines() == [
        f"starting: 0 of 1,200 rows, starting Ray, {second} s" for second in (0, 5, 10)
    ]


def test_a_terminal_gets_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with Display(stream) as display:
        display(progress("running", rows_ok=600, replicas=2, rows_per_s=5.0, eta_s=120.0))
    assert "600 of 1,200 rows" in stream.getvalue()
    assert "2:00 left" in stream.getvalue()


def test_a_note_is_told_once() -> None:
    stream = io.StringIO()
    with Display(stream) as display:
        for notes in ((), ("one file is gone",), ("one file is gone", "two runs")):
            display(progress("running", notes=notes))
    assert stream.getvalue().count("note: one file is gone") == 1
    assert "note: two runs" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (127, "2:07"), (10927, "3:02:07"), (183_725, "2 d 03:02 h"), (-3, "0 s")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_other_numbers_read_as_people_say_them() -> None:
    assert [size(999), size(1500), size(5.1e9), size(2e12)] == ["999 bytes", "1.5 kB", "5.1 GB", "2.0 TB"]
    assert [count(1, "row"), count(1200, "row")] == ["1 row", "1,200 rows"]
    assert [rate(3.42, "rows"), rate(0.02, "rows")] == ["3.4 rows/s", "1.2 rows/min"]
    assert as_json({"b": {1}}) == '{\n  "b": "{1}"\n}'


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Display(Closed()) as display:
        display(progress("running", rows_ok=1))
        display(progress("done", rows_ok=2))
    assert display.console.quiet
