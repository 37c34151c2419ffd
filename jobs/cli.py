"""The `unipic` command line: one file a command, and one place where errors become words and exit codes."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from unipic.jobs.commands import (
    bench,
    convert,
    evaluate,
    export,
    init_tiny,
    plan,
    prune,
    replay,
    run,
    schema,
    status,
    trace,
    train_tiny,
    verify,
)
from unipic.jobs.terminal.exits import FAULT, STOPPED
from unipic.pipeline.errors import SpecError, UniPicError

app = typer.Typer(
    name="unipic",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Turns manifests of prompts and pictures into images, edits and captions.

\b
First steps:
  unipic evaluate shapes --sample 20        what the small checkpoint that ships can do
  unipic plan configs/generate.yaml         what a job would do, and every fault it has
  unipic run  configs/generate.yaml         do it; the same command resumes it
  unipic status s3://datasets/pictures      how it stands, read from its output

\b
Exit codes: 0 done · 1 job or usage error · 2 more rows rejected than allowed · 3 stopped early, resumable
""",
)
app.command("plan")(plan.plan_job)
app.command("run")(run.run_job)
app.command("status")(status.show_status)
app.command("verify")(verify.verify_output)
app.command("trace")(trace.trace_row)
app.command("replay")(replay.replay_row)
app.command("export")(export.export_captions)
app.command("prune")(prune.prune_job)
app.command("convert")(convert.convert_checkpoint)
app.command("init-tiny")(init_tiny.make_tiny)
app.command("train-tiny")(train_tiny.train_tiny)
app.command("schema")(schema.print_schema)
app.add_typer(bench.app, name="bench")
app.add_typer(evaluate.app, name="evaluate")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unipic-batch {version('unipic-batch')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which version this is.")
    ] = False,
) -> None:
    pass


def program() -> NoReturn:
    """The process itself: one command, what is to be tidied up, and out at once with the command's code.

    Python's own way out would pull the ground from under native threads of Ray and Arrow, where one that wakes up just
    then aborts the process: a night's work would be whole, and its exit code say that it crashed.
    """
    code = FAULT
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAULT
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code; errors are told on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _code(words)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `unipic schema | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _code(words: list[str]) -> int:
    verbose = "-v" in words or "--verbose" in words
    command = typer.main.get_command(app)
    try:
        returned = command.main(args=words or ["--help"], prog_name="unipic", standalone_mode=False)
    except UniPicError as error:
        if verbose:
            traceback.print_exc()
        faults = error.message.count("\n") + 1 if isinstance(error, SpecError) else 1
        head = f"{faults} faults\n" if faults > 1 else f"{error.row}: " if error.row else ""
        fail(head + error.message, error.remedy)
        return STOPPED if error.retryable else FAULT
    except BrokenPipeError:
        return 0
    except Exception as error:
        if _is_usage(error):
            fail(error.format_message(), _usage_remedy(error))  # type: ignore[attr-defined]
            return FAULT
        fail(f"{type(error).__name__}: {error}", _kept(error, verbose=verbose))
        return FAULT
    return returned if isinstance(returned, int) else 0


def fail(message: str, remedy: str = "") -> None:
    """One error as a block on standard error."""
    console = Console(stderr=True, highlight=False)
    console.print("[bold red]error:[/] ", end="")
    console.print("\n  ".join(message.splitlines()), markup=False, soft_wrap=True)
    if remedy:
        console.print(f"  {remedy}", markup=False, soft_wrap=True)


def _is_usage(error: Exception) -> bool:
    """Whether the command line itself was wrong (the parser's own errors know how to say so)."""
    return hasattr(error, "format_message")


def _usage_remedy(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path if context else 'unipic'} --help`."


def _kept(error: Exception, *, verbose: bool) -> str:
    """Shows or keeps an unexpected error's traceback; returns where it is."""
    if verbose:
        traceback.print_exception(error)
        return "This is a fault of UniPic Batch itself."
    with tempfile.NamedTemporaryFile("w", prefix="unipic-error-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"This is a fault of UniPic Batch itself; the traceback is in {file.name}."


if __name__ == "__main__":
    program()
