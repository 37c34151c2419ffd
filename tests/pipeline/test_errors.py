"""Errors cross processes whole, and no secret crosses with them."""

from __future__ import annotations

import pickle

import pytest

from unipic.pipeline import errors
from unipic.pipeline.errors import RejectionKind, RowError, UniPicError, redact

CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, UniPicError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_pickles_with_its_message_remedy_and_row(kind: type[UniPicError]) -> None:
    if kind is RowError:
        error: UniPicError = RowError(
            RejectionKind.EMPTY_PROMPT, "what", stage="replica", remedy="do this", row="a.parquet:3"
        )
    else:
        error = kind("what", remedy="do this", row="a.parquet:3")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and vars(again) == vars(error)
    assert str(again) == "a.parquet:3: what. do this"
    assert again.retryable is error.retryable


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in CLASSES if kind.__name__ not in errors.__doc__] == []


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("got https://b.s3/x.png?X-Amz-Signature=abc&y=1 today", "got https://b.s3/x.png today"),
        ("s3://user:secret@bucket/key failed", "s3://bucket/key failed"),
        ("why? because", "why? because"),
    ],
)
def test_queries_and_passwords_never_reach_a_message(text: str, safe: str) -> None:
    assert redact(text) == safe
    assert UniPicError(text).message == safe
