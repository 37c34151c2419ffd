"""`unipic submit`, `jobs`, `logs` and `stop`: jobs on a Ray cluster elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.exit_codes import DONE, FAULT, STOPPED
from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson, JobFile, Set

if TYPE_CHECKING:
    from unipic.pipeline.submission.cluster import JobsOfCluster, Submitted

Address = Annotated[
    str,
    typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard: http://HOST:8265."),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `unipic submit` and `unipic jobs` print it.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the job ends, and exit with its code.")]
RetryRejected = Annotated[bool, typer.Option("--retry-rejected", help="As in `unipic run`.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")]


def submit_job(
    job: JobFile, address: Address, overrides: Set = None, wait: Wait = False, retry_rejected: RetryRejected = False
) -> None:
    """Run a job on a Ray cluster elsewhere.

    The job is checked here. The cluster gets this version of the package and the job, no weights and no manifest: its
    machines read those themselves, with credentials of their own. A job that is at work is not submitted twice.

    \b
    Examples:
      unipic submit configs/generate.yaml --address http://head:8265
      unipic submit configs/generate.yaml --address http://head:8265 --wait    Ctrl-C detaches, the job goes on

    \b
    Exit codes: 0 submitted, or with --wait done · 1 job or usage error · 2 too many rejected rows · 3 stopped early
    """
    from unipic.jobs.spec.load import load_job

    resolved = load_job(job, overrides or ())

    from unipic.pipeline.submission.cluster import JobsOfCluster, open_dashboard
    from unipic.pipeline.submission.submission import check

    if warning := open_dashboard(address):
        typer.echo(f"warning: {warning}", err=True)
    cluster = JobsOfCluster(address)
    submission = check(resolved)
    new = cluster.submit(submission, ("--retry-rejected",) if retry_rejected else ())
    words = f"submitted, {count(submission.rows, 'manifest row')}" if new else "at work already"
    say(f"{submission.id}: {words}")
    if not wait:
        say(f"`unipic logs -f {submission.id} --address {address}` shows its progress")
        return
    raise typer.Exit(_followed(cluster, submission.id))


def list_jobs(address: Address, json: AsJson = False) -> None:
    """List the jobs that were submitted to a cluster.

    \b
    Examples:
      unipic jobs --address http://head:8265
    """
    from unipic.pipeline.submission.cluster import JobsOfCluster

    found = JobsOfCluster(address).all()
    if json:
        typer.echo(as_json({"jobs": found}))
        return
    for one in found:
        say(f"{one.id}  {one.status.lower():<9}  {one.name}  {one.output}")
    if not found:
        say(f"no jobs of unipic at {address}")


def show_logs(job_id: JobId, address: Address, follow: Follow = False) -> None:
    """Show what a submitted job has printed.

    \b
    Examples:
      unipic logs unipic-0123456789abcdef --address http://head:8265
      unipic logs -f unipic-0123456789abcdef --address http://head:8265
    """
    from unipic.pipeline.submission.cluster import JobsOfCluster

    cluster = JobsOfCluster(address)
    if follow:
        raise typer.Exit(_followed(cluster, job_id))
    _show(cluster.logs(job_id))


def stop_job(job_id: JobId, address: Address) -> None:
    """Stop a submitted job.

    It commits the units in flight, for at most limits.grace_s of the job. Submit it again to resume.

    \b
    Examples:
      unipic stop unipic-0123456789abcdef --address http://head:8265
    """
    from unipic.pipeline.submission.cluster import JobsOfCluster

    cluster = JobsOfCluster(address)
    cluster.stop(job_id)
    say(f"{job_id}: stopping; it commits the units in flight")
    say(f"{job_id}: {cluster.wait(job_id).status.lower()}")


def _followed(cluster: JobsOfCluster, job_id: str) -> int:
    """Show the job's output until it ends; the exit code. Ctrl-C detaches."""
    try:
        ended = cluster.follow(job_id, _show)
    except KeyboardInterrupt:
        say(f"\ndetached; the job goes on. `unipic logs -f {job_id} --address {cluster.address}` attaches again")
        return DONE
    return _code(ended)


def _code(ended: Submitted) -> int:
    if ended.exit_code is not None and 0 <= ended.exit_code < 256:
        return ended.exit_code
    code = {"SUCCEEDED": DONE, "STOPPED": STOPPED}.get(ended.status, FAULT)
    if code == FAULT and ended.message:
        typer.echo(f"error: {ended.message.strip().splitlines()[0]}", err=True)
    return code


def _show(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()
