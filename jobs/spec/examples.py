"""The example job files that ship inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from unipic.pipeline.errors import SpecError


def examples() -> dict[str, Path]:
    """The example job files of this installation: name → path.

    >>> sorted(unipic.examples())
    ['caption', 'demo-caption', 'demo-edit', 'demo-generate', 'edit', 'generate']
    """
    folder = Path(str(resources.files("unipic"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def example(name: str) -> Path:
    """The path of one example. Raises SpecError for an unknown name."""
    known = examples()
    if name not in known:
        raise SpecError(f"no example is named {name!r}", remedy=f"The examples are {', '.join(known)}.")
    return known[name]
