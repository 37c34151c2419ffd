"""The command line: exit codes that scripts can trust, errors that are sentences, and light starts."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.clock import FakeClock
from tests.places import ROOT
from unipic.jobs import cli
from unipic.jobs.terminal.signals import TOGETHER_S, Signals
from unipic.model.init_tiny import init_tiny
from unipic.pipeline.errors import CheckpointError, EngineError, StorageUnavailable
from unipic.pipeline.execution.progress import Result

GOOD = ROOT / "configs" / "generate.yaml"

COMMANDS = [
    *(
        "",
        "init",
        "plan",
        "run",
        "status",
        "rejected",
        "example",
        "verify",
        "seal",
        "compact",
        "trace",
        "replay",
        "prune",
        "convert",
        "init-tiny",
        "train-tiny",
        "schema",
    ),
    *(
        "export",
        "train-tiny",
        "evaluate shapes",
        "bench pipeline",
        "bench plan",
        "bench model",
        "bench verify",
        "bench compact",
        "bench scale",
        "bench requests",
    ),
]


def unipic(*words: str) -> int:
    """Exit code of one command, run in this process."""
    with pytest.raises(SystemExit, match=r"^\d$") as exited:
        cli.main(words)
    return int(exited.value.code or 0)


def result(outcome: str, **facts: object) -> SimpleNamespace:
    usual = {"rows": 10, "ok": 9, "rejected": 1, "earlier": 0, "seconds": 2.0, "message": "", "output": "out"}
    return SimpleNamespace(outcome=outcome, **(usual | facts))


def run_gives(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[object]:
    """Puts `answer` (a result, or an error to raise) in the place of the pipeline's run; returns the jobs it gets."""
    seen: list[object] = []

    def run(job: object, **options: object) -> object:
        seen.append(job)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "unipic.pipeline.run", SimpleNamespace(run=run))
    return seen


def test_help_loads_neither_torch_nor_ray_nor_pyarrow() -> None:
    code = (
        "import sys\nfrom unipic.jobs import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit as exited: assert not exited.code\n"
        "print('loaded:', [name for name in ('torch', 'ray', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("loaded: []")


@pytest.mark.parametrize(("entry", "code"), [("program", 0), ("main", -signal.SIGABRT)])
def test_a_library_that_aborts_when_python_ends_does_not_change_the_exit_code(entry: str, code: int) -> None:
    script = (
        "import atexit, os, sys\nfrom unipic.jobs import cli\n"
        "class Late:\n    def __del__(self, abort=os.abort): abort()\n"
        "held = Late()\natexit.register(print, 'tidied up')\n"
        f"sys.argv[1:] = ['--help']\ncli.{entry}()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.endswith("tidied up\n")


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_a_help_that_shows_an_example(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic(*words.split(), "--help") == 0
    assert f"  unipic {words}" in capsys.readouterr().out


def test_version_is_printed_and_h_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("--version") == 0
    assert re.fullmatch(r"unipic-batch \d+\.\d+\.\d+\+(?:g|wheel|source)\S+\n", capsys.readouterr().out)
    assert unipic("run", "-h") == 0
    assert "  unipic run configs/generate.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["frobnicate"], ["run"], ["run", str(GOOD), "--no-such-option"], ["bench", "x"]])
def test_usage_errors_exit_1_with_a_pointer_to_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic(*words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "--help`." in printed


def test_a_faulty_job_exits_1_and_lists_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("plan", str(GOOD), "--set", "compute.batch_size=0", "--set", "params.guidance=0") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: 2 faults",
        "  --set params.guidance: must be at least 1, got 0",
        "  --set compute.batch_size: must be at least 1, got 0",
    ]


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("rejected", 2), ("stopped", 3)])
def test_how_a_run_ends_is_its_exit_code(
    outcome: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, result(outcome, message="because"))
    assert unipic("run", str(GOOD)) == code
    printed = capsys.readouterr().out
    assert "9 of 10 rows ok, 1 rejected" in printed
    assert "reason    because" in printed
    assert ("run the same command again to resume" in printed) is (code == 3)


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("rejected", 2), ("stopped", 0)])
def test_for_schedulers_that_retry_whatever_is_not_zero_a_run_that_stopped_may_exit_with_it(
    outcome: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_gives(monkeypatch, result(outcome, message="because"))
    assert unipic("run", str(GOOD), "--exit-zero-when-stopped") == code


def test_a_result_is_json_with_the_same_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, Result("stopped", 10, 9, 1, 0, 2.0, "because", "out"))
    assert unipic("run", str(GOOD), "--json") == 3
    facts = json.loads(capsys.readouterr().out)
    assert (facts["outcome"], facts["ok"], facts["message"]) == ("stopped", 9, "because")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointError("it is altered", remedy="Convert it again."), 1),
        (EngineError("replicas die", remedy="Look at the card."), 1),
        (StorageUnavailable("throttled", remedy="Run it again."), 3),
    ],
)
def test_errors_of_a_run_are_one_block_without_a_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, error)
    assert unipic("run", str(GOOD)) == code
    printed = capsys.readouterr().err
    assert "error: " in printed
    assert "Traceback" not in printed
    assert getattr(error, "remedy", "") in printed


def test_an_interrupted_run_exits_3_and_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, KeyboardInterrupt())
    assert unipic("run", str(GOOD)) == 3
    assert "run the same command again to resume" in capsys.readouterr().err


def test_an_unexpected_error_says_where_its_traceback_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, ZeroDivisionError("oops"))
    assert unipic("run", str(GOOD)) == 1
    printed = capsys.readouterr().err
    kept = Path(printed.split("the traceback is in ")[1].strip().rstrip("."))
    assert "ZeroDivisionError: oops" in printed
    assert "Traceback" not in printed
    assert "Traceback" in kept.read_text()
    kept.unlink()


@pytest.mark.parametrize("words", [("-v", "run"), ("run", "-v"), ("run", "--verbose")])
def test_v_before_or_after_the_command_shows_the_traceback(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gives(monkeypatch, ZeroDivisionError("oops"))
    assert unipic(*words, str(GOOD)) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [words for words in COMMANDS if words])
def test_every_command_accepts_v(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic(*words.split(), "--help") == 0
    assert "-v, --verbose" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "shown"), [((), False), (("-v",), True)])
def test_log_lines_of_the_package_show_with_v_only(
    words: tuple[str, ...], shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def schema() -> dict[str, object]:
        logging.getLogger("unipic.pipeline.storage").info("attempt 2 of 6")
        return {}

    monkeypatch.setattr("unipic.jobs.spec.load.json_schema", schema)
    assert unipic(*words, "schema") == 0
    assert ("unipic.pipeline.storage: attempt 2 of 6" in capsys.readouterr().err) is shown


def test_overrides_reach_the_job_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_gives(monkeypatch, result("done"))
    assert unipic("run", str(GOOD), "--set", "compute.batch_size=3", "--set", "output.uri=elsewhere") == 0
    (job,) = seen
    assert (job.compute.batch_size, job.output.uri) == (3, "elsewhere")  # type: ignore[attr-defined]


def test_the_first_signal_stops_gently_and_the_second_at_once() -> None:
    import signal

    stop, printed, clock = threading.Event(), [], FakeClock()
    before = signal.getsignal(signal.SIGTERM)
    with Signals(stop, printed.append, clock):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # what a scheduler sends to every process of a job reaches this one twice
        assert stop.is_set()
        (said,) = printed
        assert "waiting for the units in flight" in said
        clock.advance(TOGETHER_S)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "UniPic job"


def test_init_tiny_makes_a_checkpoint_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("init-tiny", str(tmp_path / "tiny")) == 0
    assert (tmp_path / "tiny" / "digests.json").is_file()
    assert unipic("init-tiny", str(tmp_path / "tiny")) == 1
    assert "already exists" in capsys.readouterr().err


def test_convert_refuses_a_folder_without_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("convert", str(tmp_path), str(tmp_path / "out")) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def job_over(manifest: Path, folder: Path) -> list[str]:
    """Words of a `run` of the demo's first job over another manifest, with a small checkpoint."""
    init_tiny(folder / "tiny")
    changes = [
        f"input.manifest={manifest}",
        f"model.checkpoint={folder / 'tiny'}",
        f"output.uri={folder / 'out'}",
    ]
    return ["run", str(ROOT / "configs" / "demo-generate.yaml"), *(word for one in changes for word in ("--set", one))]


def test_an_empty_manifest_is_a_fault_unless_it_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"key": pa.array([], pa.string()), "prompt": pa.array([], pa.string())}), manifest)
    words = job_over(manifest, tmp_path)
    assert unipic(*words) == 1
    assert "Pass --allow-empty to accept that." in capsys.readouterr().err
    assert unipic(*words, "--allow-empty") == 0
    assert "nothing to do: The manifest" in capsys.readouterr().err


def test_plan_reports_everything_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "prompts.parquet"
    pq.write_table(pa.table({"key": ["a", "b"], "prompt": ["a red circle", "a blue ring"]}), manifest)
    words = ["plan", *job_over(manifest, tmp_path)[1:]]
    assert unipic(*words, "--probe") == 0
    printed = capsys.readouterr().out
    for part in (
        "1 file, 2 rows",
        "prompt ← prompt",
        "key (string)",
        "a red circle",
        "(new)",
        "estimate",
    ):
        assert part in printed
    assert unipic(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device cuda", "error: --device is cuda, but PyTorch finds no GPU"),
        ("--image-size 33", "error: --image-size must be a multiple of 16, got 33"),
    ],
)
def test_an_impossible_bench_is_refused_before_it_starts(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert unipic("bench", "model", *words.split()) == 1
    assert capsys.readouterr().err.startswith(message)


def test_status_refuses_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unipic("status", str(tmp_path / "nothing")) == 1
    assert "error: " in capsys.readouterr().err
    assert unipic("status", "s3://bucket/x", "--endpoint-url", "http://me:secret@host") == 1
    assert "secret" not in capsys.readouterr().err
