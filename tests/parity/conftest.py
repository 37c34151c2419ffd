from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.oracle_cases import CaseSet, load_case_set


@pytest.fixture(scope="session")
def case_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], CaseSet]:
    """A case set by its folder, converted and loaded on first use."""
    loaded: dict[Path, CaseSet] = {}

    def load(folder: Path) -> CaseSet:
        if folder not in loaded:
            loaded[folder] = load_case_set(folder, tmp_path_factory.mktemp(folder.name) / "converted")
        return loaded[folder]

    return load
