"""`unipic schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

_NAME = "job.schema.json"


def print_schema(
    install: Annotated[bool, typer.Option("--install", help=f"Write {_NAME} to the current folder instead.")] = False,
) -> None:
    """Print the JSON schema of job files.

    With a first line `# yaml-language-server: $schema=job.schema.json`, editors complete and check a job as you type,
    if that file is in the job's folder. Jobs of `unipic init` name the schema of the installed package.

    \b
    Examples:
      unipic schema --install
      unipic schema > job.schema.json
    """
    from unipic.jobs.spec.load import json_schema

    text = json.dumps(json_schema(), indent=2)
    if not install:
        typer.echo(text)
        return
    Path(_NAME).write_text(text + "\n", encoding="utf-8")
    typer.echo(f"wrote {_NAME}")
