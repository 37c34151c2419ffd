"""`unipic schema`."""

from __future__ import annotations

import json

import typer


def print_schema() -> None:
    """Print the JSON schema of job files.

    With a first line `# yaml-language-server: $schema=job.schema.json`, editors complete and check a job as you type.

    \b
    Example:
      unipic schema > job.schema.json
    """
    from unipic.jobs.spec.load import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
