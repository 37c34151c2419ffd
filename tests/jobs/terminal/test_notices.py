"""What a person at the terminal hears of a store that does not answer, and when the command gives up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.endpoints import endpoint, says, silent
from unipic.jobs import cli
from unipic.pipeline.storage import remote, waiting

pytestmark = pytest.mark.usefixtures("s3_environment")


def ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exited:
        cli.main(words)
    return int(exited.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "plan"])
def test_a_dead_endpoint_is_named_while_it_is_waited_for_and_given_up(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.PATIENCE_S < 60, "what a person waits for"
    monkeypatch.setattr(remote, "PATIENCE_S", 2.0)
    monkeypatch.setattr(waiting, "NOTICE_AFTER_S", 0.5)
    job = tmp_path / "job.yaml"
    with endpoint(silent) as url:
        job.write_text(
            f"name: x\ntask: generate\nmodel: {{checkpoint: 'builtin:tiny'}}\n"
            f"input: {{manifest: 's3://b/m/*.parquet', columns: {{prompt: p}}}}\n"
            f"output: {{uri: 's3://b/out'}}\nstorage: {{endpoint_url: '{url}'}}\n"
        )
        words = ["status", "s3://b/out", "--endpoint-url", url] if command == "status" else ["plan", str(job)]
        code, said = ended(capsys, *words)
    assert code == 3, said
    assert re.search(rf"^warning: Waiting for {url}: (GET|HEAD|LIST) s3://b/\S* \(\d+ s so far\)$", said, re.MULTILINE)
    assert re.search(rf"error: .*{url} did not complete (GET|HEAD|LIST) s3://b/", said)


def test_a_web_page_in_place_of_the_store_is_a_mistake_in_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(says("200 OK", b"<html>Welcome</html>", Content_Type="text/html")) as url:
        code, said = ended(capsys, "status", "s3://b/out", "--endpoint-url", url)
    assert code == 1
    assert f"{url} is not an S3 endpoint" in said
