"""Training data of the second stage: scenes, encoded once, and batches of their prompts, edits and captions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unipic.model.prompts import DEFAULT_QUESTION, Prompt, PromptWriter
from unipic.model.tiny.training.losses import TextBatch
from unipic.model.tiny.training.train_vae import to_unit
from unipic.model.tiny.world.edits import KINDS, instruction_text
from unipic.model.tiny.world.grammar import TASKS, caption_phrase, caption_text, prompt_text
from unipic.model.tiny.world.samplers import phrase_for, tasks_of, training_edit, training_scene
from unipic.model.tiny.world.scene import Scene, render
from unipic.model.vae import Vae

# Binding colours to shapes is learned last, so these tasks are most frequent.
_TASK_WEIGHTS = {"single": 1, "two": 3, "count": 3, "colour": 2, "position": 2, "attribute": 7}
# Share of two-colour prompts that also name positions, where the binding is learned first.
_PLACED_SHARE = 0.5
_EDIT_WEIGHTS = {"recolour": 1, "replace": 1, "remove": 1, "add": 2}
_DROPPED_SHARE = 0.1
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Pairing:
    """An edit of the pool's images: numbers of its source and target scene, and its instruction."""

    source: int
    target: int
    instruction: str


@dataclass(frozen=True)
class Pool:
    """Training scenes without repeats and the edits between them."""

    scenes: tuple[Scene, ...]
    edits: dict[str, tuple[Pairing, ...]]


def build_pool(*, edits_per_kind: int, scenes_per_task: int, seed: int) -> Pool:
    """Scenes of every task and edits of every kind, without held-out content."""
    rng = random.Random(seed)
    numbers: dict[Scene, int] = {}

    def number(scene: Scene) -> int:
        return numbers.setdefault(scene, len(numbers))

    edits: dict[str, tuple[Pairing, ...]] = {}
    for kind in KINDS:
        cases = [training_edit(rng, kind) for _ in range(edits_per_kind)]
        edits[kind] = tuple(
            Pairing(number(case.source), number(case.target), instruction_text(case.edit)) for case in cases
        )
    for task in TASKS:
        for _ in range(scenes_per_task):
            number(training_scene(rng, task))
    return Pool(scenes=tuple(numbers), edits=edits)


@torch.inference_mode()
def encode_scenes(vae: Vae, scenes: Sequence[Scene], *, device: str, report: Callable[[str], None]) -> Tensor:
    """Unscaled mean latents of rendered scenes, (P, N, C) float32 on the CPU."""
    parts = []
    for first in range(0, len(scenes), _ENCODED_AT_ONCE):
        pictures = np.stack([render(scene) for scene in scenes[first : first + _ENCODED_AT_ONCE]])
        mean, _ = vae.moments(to_unit(pictures).to(device))
        parts.append(mean.flatten(2).transpose(1, 2).float().cpu())
        if first % (100 * _ENCODED_AT_ONCE) == 0:
            report(f"encoded {first}/{len(scenes)}")
    return torch.cat(parts).clone()


class Batches:
    """Draws training batches; each call draws from its generator argument."""

    def __init__(self, pool: Pool, latents: Tensor, writer: PromptWriter, *, device: str) -> None:
        """`latents`: (P, N, C) scaled latents of the pool's scenes."""
        self._pool, self._latents, self._writer, self._device = pool, latents, writer, device
        self._by_task: dict[str, list[int]] = defaultdict(list)
        for number, scene in enumerate(pool.scenes):
            for task in tasks_of(scene):
                self._by_task[task].append(number)
        self._generate = lru_cache(maxsize=None)(writer.generate)
        self._edit = lru_cache(maxsize=None)(writer.edit)
        question = writer.caption(DEFAULT_QUESTION)
        self.before = self._tensor(question.before)
        self.question = self._tensor(question.after or ())

    def generation(self, rng: random.Random, rows: int) -> tuple[TextBatch, Tensor]:
        """Prompts, one in ten the unconditional one, and the latents of a right answer to each."""
        prompts, numbers = [], []
        for task in rng.choices(TASKS, weights=[_TASK_WEIGHTS[task] for task in TASKS], k=rows):
            number = rng.choice(self._by_task[task])
            scene = self._pool.scenes[number]
            placed = task == "attribute" and rng.random() < _PLACED_SHARE
            phrase = caption_phrase(scene) if placed else phrase_for(rng, scene, task)
            dropped = rng.random() < _DROPPED_SHARE
            written = self._writer.generate_unconditional() if dropped else self._generate(prompt_text(phrase))
            prompts.append(written.before)
            numbers.append(number)
        return self._texts(prompts), self._pictures(numbers)

    def editing(self, rng: random.Random, rows: int) -> tuple[TextBatch, Tensor, Tensor]:
        """The text behind the image in each prompt, and the latents of sources and targets."""
        pairings, afters = [], []
        for kind in rng.choices(KINDS, weights=[_EDIT_WEIGHTS[kind] for kind in KINDS], k=rows):
            pairing = rng.choice(self._pool.edits[kind])
            dropped = rng.random() < _DROPPED_SHARE
            written: Prompt = self._writer.edit_unconditional() if dropped else self._edit(pairing.instruction)
            pairings.append(pairing)
            afters.append(written.after or ())
        sources = self._pictures([pairing.source for pairing in pairings])
        return self._texts(afters), sources, self._pictures([pairing.target for pairing in pairings])

    def captions(self, rng: random.Random, rows: int) -> tuple[TextBatch, Tensor]:
        """Answers with their end token, and the latents of the images they describe."""
        numbers = [
            rng.choice(self._by_task[task])
            for task in rng.choices(TASKS, weights=[_TASK_WEIGHTS[task] for task in TASKS], k=rows)
        ]
        answers = [self._answer(caption_text(self._pool.scenes[number])) for number in numbers]
        return self._texts(answers), self._pictures(numbers)

    def _answer(self, text: str) -> tuple[int, ...]:
        # Behind the image follow a line break, the text, and an ending that starts with the end token.
        after, ending = self._edit(text).after or (), len(self._edit("").after or ()) - 1
        return after[1 : len(after) - ending + 1]

    def _texts(self, rows: Sequence[tuple[int, ...]]) -> TextBatch:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        return TextBatch(ids.to(self._device), torch.tensor([len(row) for row in rows], device=self._device))

    def _pictures(self, numbers: Sequence[int]) -> Tensor:
        return self._latents[torch.tensor(numbers)].to(self._device)

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self._device)
