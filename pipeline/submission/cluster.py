"""The jobs of a Ray cluster, through its dashboard's address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from unipic.pipeline.errors import EngineError, JobError
from unipic.pipeline.execution.ray_address import TOKEN_REMEDY
from unipic.pipeline.submission.submission import PREFIX, Submission
from unipic.pipeline.submission.wheel import build_wheel
from unipic.pipeline.supervision.failures import essence

POLL_S = 1.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
ADDRESS_REMEDY = "Give the address of the cluster's dashboard, such as http://HOST:8265, and check that it is running."


@dataclass(frozen=True)
class Submitted:
    """A job of ours on a cluster.

    Attributes:
        status: "PENDING", "RUNNING", "SUCCEEDED", "FAILED" or "STOPPED", as Ray says.
        exit_code: of `unipic run` there; None before it has ended, or where Ray does not know.
        message: of Ray, on how it ended.
    """

    id: str
    status: str
    name: str = ""
    output: str = ""
    started: float = 0.0
    exit_code: int | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class JobsOfCluster:
    """Submits jobs and looks at those that were submitted.

    Args:
        address: of the dashboard, such as http://head:8265.

    Raises:
        EngineError: from every call: the cluster does not answer, or asks for a token.
    """

    def __init__(self, address: str) -> None:
        if urlsplit(address).scheme not in ("http", "https"):
            raise JobError(f"{address} is not the address of a dashboard", remedy=ADDRESS_REMEDY)
        self.address = address.rstrip("/")
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.ERROR)  # it would report each request and upload
        with self._ours():
            self.client = JobSubmissionClient(self.address)

    def submit(self, submission: Submission, options: tuple[str, ...] = ()) -> bool:
        """Start the job; False where it is at work already. One that has ended is submitted anew: it resumes."""
        with self._ours():
            known = self.find(submission.id)
            if known is not None and not known.ended:
                return False
            if known is not None:
                self.client.delete_job(submission.id)
            with tempfile.TemporaryDirectory(prefix="unipic-submit-") as folder:
                files = Path(folder, "files")
                files.mkdir()
                submission.write(files)
                environment = {
                    "working_dir": str(files),
                    "py_modules": [str(build_wheel(Path(folder)))],
                    "env_vars": submission.variables(),
                }
                self.client.submit_job(
                    entrypoint=submission.entrypoint(options),
                    submission_id=submission.id,
                    runtime_env=environment,
                    metadata=submission.metadata(),
                )
        return True

    def all(self) -> list[Submitted]:
        """Jobs that `submit` started, latest first."""
        with self._ours():
            found = [_submitted(one) for one in self.client.list_jobs() if (one.submission_id or "").startswith(PREFIX)]
        return sorted(found, key=lambda one: -one.started)

    def find(self, job_id: str) -> Submitted | None:
        with self._ours():
            return next((_submitted(one) for one in self.client.list_jobs() if one.submission_id == job_id), None)

    def get(self, job_id: str) -> Submitted:
        """Raises JobError where there is no such job."""
        found = self.find(job_id)
        if found is None:
            raise JobError(f"the cluster at {self.address} has no job {job_id}", remedy="`unipic jobs` lists them.")
        return found

    def logs(self, job_id: str) -> str:
        """All that the job has printed so far."""
        self.get(job_id)
        with self._ours():
            text: str = self.client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str, show: Callable[[str], None]) -> Submitted:
        """Show what the job prints, from the beginning, until it has ended."""

        async def tail() -> None:
            lines: AsyncIterator[str] = self.client.tail_job_logs(job_id)
            async for text in lines:
                show(text)

        self.get(job_id)
        with self._ours():
            asyncio.run(tail())
        return self.wait(job_id)

    def stop(self, job_id: str) -> None:
        """Ask the job to stop: it commits the units in flight, within the grace of its limits."""
        self.get(job_id)
        with self._ours():
            self.client.stop_job(job_id)

    def wait(self, job_id: str) -> Submitted:
        """The job, once it has ended."""
        while not (found := self.get(job_id)).ended:
            time.sleep(POLL_S)
        return found

    @contextlib.contextmanager
    def _ours(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise EngineError(f"the cluster at {self.address} asks for a token", remedy=TOKEN_REMEDY) from error
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            raise EngineError(f"the cluster at {self.address}: {essence(error)}", remedy=ADDRESS_REMEDY) from error


def open_dashboard(address: str) -> str:
    """A warning about a dashboard that strangers can reach, or ""."""
    host = urlsplit(address).hostname or ""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" or not _is_public(host):
        return ""
    return (
        f"the dashboard at {address} has a public address, and no token is used: everyone who can connect can run code "
        "there. Set RAY_AUTH_MODE=token on every machine, or reach it through a tunnel"
    )


def _is_public(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(ipaddress.ip_address(one[4][0]).is_global for one in found)


def _submitted(details: Any) -> Submitted:
    metadata = details.metadata or {}
    return Submitted(
        id=details.submission_id,
        status=str(details.status.value if hasattr(details.status, "value") else details.status),
        name=metadata.get("name", ""),
        output=metadata.get("output", ""),
        started=(details.start_time or 0) / 1000,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
