"""`python -m unipic` is the `unipic` command."""

from unipic.jobs.cli import program

program()
