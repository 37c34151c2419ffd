"""What is shipped for users to read and copy is true: job files, their schema, the README's commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import typer
import yaml

from tests.inprocess import run_here
from tests.places import ROOT
from unipic.jobs import cli
from unipic.jobs.cli import app
from unipic.jobs.spec.load import json_schema, load_job
from unipic.pipeline.errors import SpecError
from unipic.pipeline.job import Job
from unipic.pipeline.stages.engine import UniPicEngine

JOB_FILES = sorted((ROOT / "configs").glob("*.yaml"))
SCHEMA = ROOT / "configs" / "job.schema.json"


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_every_job_file_is_valid_for_us_and_for_editors(path: Path) -> None:
    assert load_job(path).name == path.stem
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=job.schema.json\n")
    jsonschema.validate(yaml.safe_load(text), json.loads(SCHEMA.read_text()))


def test_the_committed_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), "run `make schema`"


def test_the_schema_knows_the_short_forms_and_refuses_unknown_keys() -> None:
    schema = json_schema()
    job = yaml.safe_load((ROOT / "configs" / "generate.yaml").read_text())
    job["compute"]["replicas"] = 4
    jsonschema.validate(job, schema)
    job["compute"]["replica"] = 4
    with pytest.raises(jsonschema.ValidationError, match=r"is not valid|unexpected"):
        jsonschema.validate(job, schema)


def commands_in(text: str) -> set[str]:
    """Every `unipic …` line of a document's code blocks, continued lines joined."""
    blocks = re.findall(r"```(?:bash|sh|yaml)?\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return {match[1] for line in lines if (match := re.match(r"\s*(?:\$ )?(unipic [^#]*)", line))}


def known_options(words: list[str]) -> tuple[str, set[str]]:
    """(command path, its options) that `words` call."""
    command = typer.main.get_command(app)
    path = "unipic"
    for word in words[1:]:
        commands = getattr(command, "commands", {})
        if word not in commands:
            assert not commands, f"{path} has no command {word!r}"
            break
        command, path = commands[word], f"{path} {word}"
    return path, {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("document", ["README.md", "infra/README.md"])
def test_every_command_a_document_shows_exists_with_its_options(document: str) -> None:
    found = commands_in((ROOT / document).read_text())
    assert found
    for line in found:
        words = shlex.split(line.split("·")[0])
        path, options = known_options(words)
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in options, f"{document}: {path} has no option {word}"


@pytest.mark.parametrize("document", ["README.md", "infra/README.md"])
def test_every_make_target_and_file_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    for name in re.findall(r"`((?:configs|jobs|pipeline|model|infra|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).is_file(), f"{document} names {name}"


def test_the_readmes_job_is_valid_and_its_faults_are_reported_as_shown(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    job = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0]
    path = tmp_path / "my-job.yaml"
    path.write_text(job)
    assert load_job(path).name == "my-pictures"
    path.write_text(job.replace("image_size", "image_sise").replace("auto", "0"))
    with pytest.raises(SpecError, match="unknown key") as caught:
        load_job(path)
    for fault in caught.value.message.splitlines():
        assert fault.replace(str(path), "my-job.yaml") in text


def test_job_files_contain_no_credentials() -> None:
    for path in JOB_FILES:
        assert not re.search(r"AKIA|secret[_a-z]*: *\S|password: *\S", path.read_text())


def quick_start() -> list[str]:
    """The command lines of the README's first code block."""
    block = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]


def test_the_readmes_quick_start_works_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(job: Job, **_: object) -> SimpleNamespace:
        run_here(job, make_engine=UniPicEngine)
        return SimpleNamespace(
            outcome="done", rows=2, ok=2, rejected=0, earlier=0, seconds=1.0, message="", output=job.output.uri
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unipic.pipeline.run.run", run)
    for line in quick_start():
        if not line.startswith("unipic "):
            subprocess.run(["sh", "-c", line], check=True)
            continue
        command, _, target = line.partition(" > ")
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main(shlex.split(command)[1:])
        printed = capfd.readouterr().out
        if target:
            Path(target).write_text(printed)
    assert "prompt  a red circle" in printed and "prompts.csv, row 0" in printed
