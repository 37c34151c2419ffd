"""The run record of an output."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipic.pipeline.errors import OutputError
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


@pytest.mark.parametrize("text", ['"a text"', "[]", "3", "null", "{}", '{"fingerprint": "x"}', "rubbish"])
def test_a_damaged_run_json_is_told_as_such(tmp_path: Path, text: str) -> None:
    STORAGE.write(f"{tmp_path}/out/_unipic/run.json", text.encode())
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        Ledger(f"{tmp_path}/out", STORAGE).run()
