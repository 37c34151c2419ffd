"""Prompt templates and tokens. Special tokens inside a user's text are never interpreted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

IMAGE_TOKEN = "<image>"
START_TOKEN = "<|im_start|>"
END_TOKEN = "<|im_end|>"
UNCONDITIONAL_GENERATE = "Generate an image."
UNCONDITIONAL_EDIT = "Repeat this image."
DEFAULT_QUESTION = "Describe the image in detail."


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the place of an image; `after` is None without one."""

    before: tuple[int, ...]
    after: tuple[int, ...] | None = None

    @property
    def text_tokens(self) -> int:
        return len(self.before) + len(self.after or ())

    def ids(self, *, image_id: int, image_tokens: int) -> list[int]:
        """All ids in order, the image as `image_tokens` times `image_id`."""
        if self.after is None:
            return list(self.before)
        return [*self.before, *[image_id] * image_tokens, *self.after]


class PromptWriter:
    """Turns prompts into tokens, and answers into text."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds a tokenizer's files. Raises ValueError if it lacks the chat tokens."""
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        added = self._tokenizer.get_added_vocab()
        missing = [token for token in (START_TOKEN, END_TOKEN) if token not in added]
        if missing:
            raise ValueError(f"the tokenizer has no {' and no '.join(missing)}")
        self.start_id: int = added[START_TOKEN]
        self.end_id: int = added[END_TOKEN]
        self.image_id: int = added.get(IMAGE_TOKEN, len(self._tokenizer))
        self._plain = _without_added_tokens(self._tokenizer.backend_tokenizer)

    def generate(self, prompt: str, *, full_stop: bool = False) -> Prompt:
        """`full_stop`: strip the prompt and end it with a full stop, as the published batch script does."""
        return self._chat(f"Generate an image: {prompt.strip() + '.' if full_stop else prompt}")

    def generate_unconditional(self) -> Prompt:
        return self._chat(UNCONDITIONAL_GENERATE)

    def edit(self, instruction: str) -> Prompt:
        return self._chat_with_picture(instruction)

    def edit_unconditional(self) -> Prompt:
        return self._chat_with_picture(UNCONDITIONAL_EDIT)

    def caption(self, question: str) -> Prompt:
        return self._chat_with_picture(question)

    def text(self, ids: Sequence[int]) -> str:
        """An answer's ids → its text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _encode(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _chat(self, text: str) -> Prompt:
        return Prompt((self.start_id, *self._encode(f"user\n{text}"), *self._ending()))

    def _chat_with_picture(self, text: str) -> Prompt:
        return Prompt((self.start_id, *self._encode("user\n")), (*self._encode(f"\n{text}"), *self._ending()))

    def _ending(self) -> tuple[int, ...]:
        return self.end_id, *self._encode("\n"), self.start_id, *self._encode("assistant\n")


def _without_added_tokens(backend: Any) -> Any:
    # A tokenizer without added tokens cannot find one inside a user's text.
    body = json.loads(backend.to_str())
    body.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return type(backend).from_str(json.dumps(body))
