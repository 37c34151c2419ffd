from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unipic.model.engine import Engine
from unipic.model.init_tiny import init_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in our layout; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    init_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Engine:
    torch.manual_seed(0)
    return Engine.load(checkpoint)
