"""Options that every command accepts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from unipic.jobs.terminal import logs

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show log lines, and tracebacks of errors.")]


def with_global_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a command that also accepts `-v`."""

    @functools.wraps(function)
    def command(*arguments: Any, verbose: bool = False, **options: Any) -> Any:
        if verbose:
            logs.configure(verbose=True)
        return function(*arguments, **options)

    hints = get_type_hints(function, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[name]) for name, parameter in inspect.signature(function).parameters.items()
    ]
    parameters.append(inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose))
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {**hints, "verbose": Verbose}
    return command
