"""The `unipic` command line: registers the commands, and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from unipic.jobs.commands import (
    bench,
    compact,
    convert,
    evaluate,
    example,
    export,
    init,
    init_tiny,
    plan,
    prune,
    rejected,
    replay,
    run,
    schema,
    seal,
    status,
    submit,
    trace,
    train_tiny,
    verify,
)
from unipic.jobs.terminal import logs
from unipic.jobs.terminal.exit_codes import FAULT, INTERRUPT, STOPPED
from unipic.jobs.terminal.global_options import Verbose, with_global_options
from unipic.jobs.terminal.guard import guard, uses_ray
from unipic.jobs.terminal.lines import harmless, wrapped
from unipic.pipeline.errors import SpecError, UniPicError

app = typer.Typer(
    name="unipic",
    add_completion=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Batch image generation, editing and captioning with UniPic on Ray.

\b
First steps:
  unipic init prompts.csv > job.yaml       write a job for your prompts or images
  unipic plan job.yaml                     check it, show what it will do
  unipic run job.yaml                      run it; the same command resumes it
  unipic status out/prompts-generate       show its progress

\b
Exit codes: 0 done · 1 job or usage error · 2 too many rejected rows ·
            3 stopped early, resumable
""",
)
COMMANDS: dict[str, Callable[..., object]] = {
    "init": init.init_job,
    "plan": plan.plan_job,
    "run": run.run_job,
    "submit": submit.submit_job,
    "jobs": submit.list_jobs,
    "logs": submit.show_logs,
    "stop": submit.stop_job,
    "status": status.show_status,
    "rejected": rejected.list_rejected,
    "verify": verify.verify_output,
    "seal": seal.seal_output,
    "compact": compact.compact_output,
    "trace": trace.trace_row,
    "replay": replay.replay_row,
    "export": export.export_output,
    "prune": prune.prune_job,
    "convert": convert.convert_checkpoint,
    "init-tiny": init_tiny.make_tiny,
    "train-tiny": train_tiny.train_tiny,
    "example": example.print_example,
    "schema": schema.print_schema,
}
for name, function in COMMANDS.items():
    app.command(name)(with_global_options(function))
app.add_typer(bench.app, name="bench")
app.add_typer(evaluate.app, name="evaluate")


def _show_version(requested: bool) -> None:
    if requested:
        from unipic.pipeline.code_version import code_version

        typer.echo(f"unipic-batch {code_version()}")  # as the rows that it writes state it
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    if verbose:
        logs.configure(verbose=True)


def program() -> NoReturn:
    """Entry point of the process: runs one command, then exits without Python's own teardown.

    Native threads of Ray and Arrow that wake up during that teardown abort the process, and a finished job would
    report a crash as its exit code.
    """
    state = guard() if uses_ray(sys.argv[1:]) else None
    code = FAULT
    try:
        main()
    except SystemExit as exited:
        code = exited.code if isinstance(exited.code, int) else FAULT
    if state is not None:
        state(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code. Errors go to standard error."""
    code = _exit_code(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as in `unipic schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _exit_code(arguments: list[str]) -> int:
    logs.configure(verbose=False)
    command = typer.main.get_command(app)
    try:
        returned = command.main(args=arguments or ["--help"], prog_name="unipic", standalone_mode=False)
    except UniPicError as error:
        if logs.verbose():
            traceback.print_exc()
        _print_known(error)
        return STOPPED if error.retryable else FAULT
    except BrokenPipeError:
        return 0
    except (typer.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return INTERRUPT
    except Exception as error:
        if _is_usage_error(error):
            print_error(error.format_message(), _usage_hint(error))  # type: ignore[attr-defined]
        else:
            print_error(f"{type(error).__name__}: {error}", _keep_traceback(error))
        return FAULT
    return returned if isinstance(returned, int) else 0


def _print_known(error: UniPicError) -> None:
    faults = error.message.count("\n") + 1 if isinstance(error, SpecError) else 1
    heading = f"{faults} faults\n" if faults > 1 else f"{error.row}: " if error.row else ""
    print_error(heading + error.message, error.remedy)


def print_error(message: str, remedy: str = "") -> None:
    """Prints one error as a block on standard error."""
    console = Console(stderr=True, highlight=False)
    columns = console.width if console.is_terminal else 0
    lines = [f"{'  ' if at else 'error: '}{line}" for at, line in enumerate(message.splitlines() or [""])]
    lines += [f"  {remedy}"] if remedy else []
    first, *rest = [wrapped(harmless(line), columns) for line in lines]
    console.print("[bold red]error:[/]", end="")
    console.print("\n".join([first.removeprefix("error:"), *rest]), markup=False, soft_wrap=True)


def _is_usage_error(error: Any) -> bool:
    """Whether the argument parser raised `error`; only its errors format themselves."""
    return hasattr(error, "format_message")


def _usage_hint(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path if context else 'unipic'} --help`."


def _keep_traceback(error: Exception) -> str:
    """Prints the traceback with `-v`, else writes it to a file; returns what to tell the user."""
    if logs.verbose():
        traceback.print_exception(error)
        return "This is a bug in UniPic Batch."
    with tempfile.NamedTemporaryFile("w", prefix="unipic-error-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"This is a bug in UniPic Batch; the traceback is in {file.name}."


if __name__ == "__main__":
    program()
