"""`unipic example`."""

from __future__ import annotations

from typing import Annotated

import typer


def print_example(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The example; default: list their names.")] = None,
) -> None:
    """Print an example job file.

    The package contains commented examples of all tasks. Save one and edit it, or let `unipic init` write a job.

    \b
    Examples:
      unipic example
      unipic example generate > my-job.yaml
    """
    from unipic.jobs.spec.examples import example, examples

    if name is None:
        typer.echo("\n".join(examples()))
    else:
        typer.echo(example(name).read_text(encoding="utf-8"), nl=False)
