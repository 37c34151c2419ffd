"""An error keeps, as data, what the driver decides by."""

from __future__ import annotations

import pytest

from unipic.pipeline.errors import AccessDenied, StorageUnavailable
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.supervision.failures import DEATHS_PER_ATTEMPT, Failure, WorkersDied, check_deaths, essence

UNIT = Unit(ManifestFile("m/a.parquet", "a.parquet", 20, 1, ""), first_row=8, rows=8)


def test_a_failure_says_whether_to_attempt_again_and_whose_fault_it_is() -> None:
    assert Failure.of(StorageUnavailable("503"), "commit") == Failure(
        "StorageUnavailable", "503", "commit", retryable=True, storage=True
    )
    assert not Failure.of(AccessDenied("403"), "commit").retryable
    unforeseen = Failure.of(KeyError("x"), "prepare")
    assert not unforeseen.retryable and "KeyError" in unforeseen.details


def test_a_unit_may_cost_a_few_workers_and_then_waits_for_its_next_attempt() -> None:
    check_deaths(UNIT, DEATHS_PER_ATTEMPT - 1, "held")
    with pytest.raises(WorkersDied, match=r"a\.parquet, rows 8 to 15: 3 processes died while they held") as caught:
        check_deaths(UNIT, DEATHS_PER_ATTEMPT, "held")
    failure = Failure.of(caught.value, "replica")
    assert failure.retryable and failure.deadly and not failure.details


def test_the_essence_of_an_error_is_its_first_line_and_its_causes_without_secrets() -> None:
    try:
        try:
            raise OSError("https://host/x?X-Amz-Signature=secret is gone\nmore")
        except OSError as cause:
            raise RuntimeError("could not load") from cause
    except RuntimeError as error:
        assert essence(error) == "RuntimeError: could not load; caused by OSError: https://host/x is gone"
