"""Real S3 servers on this machine: rclone over real files, and moto, which honours conditional puts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

KEY, SECRET = "unipic-test", "unipic-test-secret"
ENV = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
READY_S = 60


@dataclass(frozen=True)
class S3Server:
    """A running server: where it is, what a client's environment needs, and how to make a bucket."""

    endpoint_url: str
    make_bucket: Callable[[str], None]
    env: dict[str, str] = field(default_factory=lambda: dict(ENV))

    def bucket(self) -> str:
        """The URI of a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.make_bucket(name)
        return f"s3://{name}"


@contextmanager
def rclone_s3(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3` over `folder`, whose sub-folders are the buckets. It ignores conditional headers."""
    program = Path(sys.executable).parent / "rclone"
    server = subprocess.Popen(
        [*f"{program} serve s3 -v --auth-key {KEY},{SECRET} --addr 127.0.0.1:0".split(), folder],
        env={**os.environ, "RCLONE_CONFIG": os.devnull},
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    endpoint: list[str] = []
    known = threading.Event()

    def listen() -> None:
        assert server.stderr is not None
        for line in server.stderr:
            said.append(line)
            address = re.search(r"https?://127\.0\.0\.1:\d+", line)
            if address is not None and not endpoint:
                endpoint.append(address[0])
                known.set()
        known.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        known.wait(READY_S)
        if not endpoint:
            raise RuntimeError(f"rclone did not say where it listens: {''.join(said)}")
        yield S3Server(endpoint[0], partial(_make_bucket, endpoint[0]))
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        listener.join(10)


@contextmanager
def moto_s3() -> Iterator[S3Server]:
    """moto's server in a thread of this process; other processes reach it at its endpoint."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint_url = f"http://{host}:{port}"

    try:
        yield S3Server(endpoint_url, partial(_make_bucket, endpoint_url))
    finally:
        server.stop()


def _make_bucket(endpoint_url: str, name: str) -> None:
    """Through the server itself: rclone keeps what it knows of its folders for minutes."""
    from botocore.session import Session

    client = Session().create_client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket=name)


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """Test credentials in this process's environment (and its children's), and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in ENV.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory, s3_environment: None) -> Iterator[S3Server]:
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(s3_environment: None) -> Iterator[S3Server]:
    with moto_s3() as server:
        yield server
