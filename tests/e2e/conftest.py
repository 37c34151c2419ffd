from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command_line import unipic


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint made by the command line."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    unipic("init-tiny", str(folder))
    return folder
