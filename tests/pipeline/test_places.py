"""Paths of a job: what is expanded, and what is refused before anything is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from unipic.pipeline.places import Place

PLACE: TypeAdapter[str] = TypeAdapter(Place)


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PLACE.validate_python("~/out") == f"{tmp_path}/out"
    assert PLACE.validate_python("a/~/b") == "a/~/b"


@pytest.mark.parametrize("value", ["$HOME/out", "${HOME}/out", "/data/$USER/out", "s3://bucket/${RUN}/out"])
def test_an_environment_variable_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="environment variables are not expanded in a job"):
        PLACE.validate_python(value)


@pytest.mark.parametrize("value", ["a$b", "cost in $", "s3://bucket/$1"])
def test_a_dollar_that_names_no_variable_is_a_character(value: str) -> None:
    assert PLACE.validate_python(value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [("a\0b", "NUL character"), ("~no-such-user/x", "home folder ~no-such-user")],
)
def test_a_path_that_can_lead_nowhere_is_refused(value: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PLACE.validate_python(value)
