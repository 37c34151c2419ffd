"""A tokenizer whose tokens are the grammar's whole words, so that a prompt is about twenty tokens long."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from unipic.model.init_tiny import byte_pairs, write_tokenizer
from unipic.model.prompts import DEFAULT_QUESTION, UNCONDITIONAL_EDIT, UNCONDITIONAL_GENERATE
from unipic.model.tiny.world.grammar import NUMBERS, PLURALS
from unipic.model.tiny.world.scene import COLOURS, SHAPES

_TEMPLATE = f"user assistant Generate an image: {UNCONDITIONAL_GENERATE} {UNCONDITIONAL_EDIT} {DEFAULT_QUESTION}"
_PHRASES = "a photo of an and left right above below make the replace with remove add"
# The chat tokens and the image's place come after the vocabulary; sizes go up in steps of 64.
_ADDED_TOKENS, _SIZE_STEP = 4, 64


def words() -> list[str]:
    """Every word of the grammar and of the prompt templates, once."""
    text = f"{_TEMPLATE} {_PHRASES} {' '.join((*SHAPES, *PLURALS.values(), *COLOURS, *NUMBERS.values()))}"
    return list(dict.fromkeys(word.strip(".:") for word in text.split()))


def grammar_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, then byte pairs learned from the words, alone and after a space, until each word is one token."""
    vocabulary = {symbol: rank for rank, symbol in enumerate(s for s in byte_pairs()[0] if len(s) == 1)}
    spelled = [list(start + word) for word in words() for start in ("", "Ġ")]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for symbols in spelled for pair in pairwise(symbols)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        vocabulary.setdefault("".join(best), len(vocabulary))
        spelled = [_merged(symbols, best) for symbols in spelled]
    return vocabulary, merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def vocabulary_size() -> int:
    """Rows of the embedding table."""
    return -(-(len(grammar_pairs()[0]) + _ADDED_TOKENS) // _SIZE_STEP) * _SIZE_STEP


def write_vocabulary(folder: Path) -> None:
    """Write the tokenizer's files to a new folder."""
    vocabulary, merges = grammar_pairs()
    write_tokenizer(folder, vocabulary, merges)
