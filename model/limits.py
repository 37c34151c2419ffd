"""What a checkpoint accepts as a prompt. Only the tokenizer is needed, not the weights."""

from __future__ import annotations

from unipic.model.config import ReplicaConfig
from unipic.model.memory import Task
from unipic.model.prompts import Prompt, PromptWriter

# No token is longer than this in characters, so a longer text exceeds the limit without tokenizing.
_MAX_TOKEN_CHARACTERS = 256


def fault_of(
    prompt: str, writer: PromptWriter, config: ReplicaConfig, *, task: Task, image_size: int | None = None
) -> str | None:
    """Why this prompt cannot run, or None. `image_size`: of the job; None for the trained size."""
    if not prompt.strip():
        return "the prompt is empty"
    try:
        prompt.encode()
    except UnicodeEncodeError as fault:
        return f"the prompt is not Unicode text: half a surrogate pair at character {fault.start}"
    limit = _text_limit(config, task, image_size or config.default_image_size)
    if len(prompt) > limit * _MAX_TOKEN_CHARACTERS:
        return f"the prompt is too long: {len(prompt)} characters, the limit is {limit} tokens"
    count = _written(prompt, writer, task).text_tokens
    if count > limit:
        return f"the prompt is too long: {count} tokens, the limit is {limit}"
    return None


def _written(prompt: str, writer: PromptWriter, task: Task) -> Prompt:
    if task == "generate":
        return writer.generate(prompt)
    return writer.edit(prompt) if task == "edit" else writer.caption(prompt)


def _text_limit(config: ReplicaConfig, task: Task, image_size: int) -> int:
    image_tokens = config.grid_of(image_size) ** 2 + config.mar.buffer_tokens
    images = 2 if task == "edit" else 1
    return max(0, min(config.max_prompt_tokens, config.llm.max_positions - images * image_tokens))
