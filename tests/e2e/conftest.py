from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.command_line import unipic
from unipic.model.tiny.shipped import shipped_checkpoint


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint made by the command line."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    unipic("init-tiny", str(folder))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of the trained checkpoint that ships, a random one where none does."""
    if shipped := shipped_checkpoint():
        return Path(shutil.copytree(shipped, tmp_path_factory.mktemp("weights") / "trained"))
    random: Path = request.getfixturevalue("random_checkpoint")
    return random
