"""What a image or a caption costs on a card, counted without one: launches, arithmetic, memory traffic, time.

The transformers are built with one and with two layers, on tensors without data; what the second layer adds, each
other layer adds too. So the published sizes are counted in seconds. Times are arithmetic from a card's data sheet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unipic.model import tasks
from unipic.model.caches import GrowingCache
from unipic.model.cards import EAGER_LAUNCH_S, GRAPH_LAUNCH_S, Card
from unipic.model.config import ReplicaConfig
from unipic.model.counting import Counter, Work, counting
from unipic.model.parts import PARTS, watched
from unipic.model.prompts import Prompt
from unipic.model.replay import buckets
from unipic.model.sampling import SamplerOptions, reveals
from unipic.model.unipic import UniPic

_PROMPT_TOKENS, _UNCONDITIONAL_TOKENS = 30, 12
_GRAPHED = ("head step", "caption token")
# Steps of the head a reveal, and tokens of a caption, that are counted; the others are like them.
_STEPS, _TOKENS = 1, 8


@dataclass(frozen=True)
class PartCost:
    """One part of a whole batch; `busy_s`: the card's kernels one after another, `launch_s`: the host's launches."""

    part: str
    work: Work
    launch_s: float

    @property
    def busy_s(self) -> float:
        return self.work.busy_s

    @property
    def takes_s(self) -> float:
        """Launches and kernels overlap: the slower of the two rules."""
        return max(self.busy_s, self.launch_s)


@dataclass(frozen=True)
class Cost:
    """`batch`: what it is of; `head_shapes`: distinct sizes of head steps; `parts`: in the order they run in."""

    card: str
    batch: int
    head_shapes: int
    parts: tuple[PartCost, ...]

    def part(self, name: str) -> Work:
        return next((one.work for one in self.parts if one.part == name), Work())

    @property
    def total(self) -> Work:
        total = Work()
        for one in self.parts:
            total.add(one.work)
        return total

    @property
    def seconds_each(self) -> float:
        """Of one image or caption, device and host at work at the same time within a part."""
        return sum(one.takes_s for one in self.parts) / self.batch


def image_cost(
    config: ReplicaConfig,
    options: SamplerOptions,
    card: Card,
    *,
    image_size: int,
    batch: int = 1,
    task: Literal["generate", "edit"] = "generate",
    graphs: bool = True,
) -> Cost:
    """A batch of images in bfloat16; `graphs`: the head's steps are replayed from CUDA graphs."""
    grid = config.grid_of(image_size)
    counted = replace(options, diffusion_steps=_STEPS, last_diffusion_steps=None)
    plan = reveals(grid * grid, options)
    # Head steps are counted for _STEPS a reveal; each reveal has as many as its plan says.
    more = sum(reveal.steps for reveal in plan) / (_STEPS * len(plan))

    def run(model: UniPic) -> None:
        noise = _Shapes(batch, grid * grid, model.mar.head.channels)
        prompts, free = [Prompt(tuple(range(_PROMPT_TOKENS)))] * batch, Prompt(tuple(range(_UNCONDITIONAL_TOKENS)))
        if task == "edit":
            prompts, free = [Prompt((0,), one.before) for one in prompts], Prompt((0,), free.before)
            pixels = torch.empty(batch, 3, image_size, image_size, device="meta")
            latents = tasks.edit(model, prompts, free, pixels=pixels, noise=noise, options=counted)
        else:
            latents = tasks.generate(model, prompts, free, grid=grid, noise=noise, options=counted)
        tasks.decode(model, latents)

    sizes = buckets([reveal.masked_before - reveal.masked_after for reveal in plan])
    found = _by_layers(config, run, card)
    found["head step"] = _times(found["head step"], more)
    return _cost(found, card, batch=batch, graphs=graphs, head_shapes=len(sizes))


def caption_cost(
    config: ReplicaConfig, card: Card, *, image_size: int, batch: int = 1, tokens: int = 256, graphs: bool = True
) -> Cost:
    """A batch of captions of `tokens` tokens each in bfloat16."""

    def run(model: UniPic) -> None:
        pixels = torch.empty(batch, 3, image_size, image_size, device="meta")
        prompts = [Prompt((0,), tuple(range(_PROMPT_TOKENS)))] * batch
        with torch.inference_mode():
            embeddings, lengths = tasks.caption_prompts(model, prompts, pixels=pixels)
            prompt, hidden = model.llm.read_prompts(embeddings, lengths, room=tokens)
            cache = GrowingCache(prompt)
            for _ in range(_TOKENS):
                ids = model.llm.logits(hidden).argmax(dim=-1)
                hidden = model.llm.step(model.llm.embed(ids), cache)

    found = _by_layers(config, run, card)
    found["caption token"] = _times(found["caption token"], tokens / _TOKENS)
    return _cost(found, card, batch=batch, graphs=graphs, head_shapes=0)


def _cost(found: dict[str, Work], card: Card, *, batch: int, graphs: bool, head_shapes: int) -> Cost:
    parts = []
    for name in PARTS:
        work = found.get(name, Work())
        launch_s = GRAPH_LAUNCH_S if graphs and name in _GRAPHED else EAGER_LAUNCH_S
        if work.launches:
            parts.append(PartCost(name, work, work.launches * launch_s))
    return Cost(card.name, batch, head_shapes, tuple(parts))


def _by_layers(config: ReplicaConfig, run: Callable[[UniPic], None], card: Card) -> dict[str, Work]:
    """Work by part of a model of these sizes, from models whose transformers have one and two layers."""
    mar, llm = config.mar, config.llm
    depths = {
        "prompt": llm.depth,
        "LLM extend": llm.depth,
        "caption token": llm.depth,
        "MAR encoder": mar.encoder_depth,
        "MAR decoder": mar.decoder_depth,
    }
    one, two = (_counted(_with_depth(config, depth), run, card).parts for depth in (1, 2))
    found = {}
    for name, work in two.items():
        added = _difference(work, one[name])
        found[name] = Work()
        found[name].add(work)
        if name in depths:
            found[name].add(added, depths[name] - 2)
    return found


def _counted(config: ReplicaConfig, run: Callable[[UniPic], None], card: Card) -> Counter:
    with torch.device("meta"):
        model = UniPic(config).to(torch.bfloat16).requires_grad_(False).eval()
    model.lay_out()
    with counting(card) as counter, watched(model, counter.part):
        run(model)
    return counter


def _with_depth(config: ReplicaConfig, depth: int) -> ReplicaConfig:
    return replace(
        config,
        mar=replace(config.mar, encoder_depth=depth, decoder_depth=depth),
        llm=replace(config.llm, depth=depth),
    )


def _difference(more: Work, less: Work) -> Work:
    out = Work()
    out.add(more)
    out.add(less, -1)
    return out


def _times(work: Work, factor: float) -> Work:
    out = Work()
    out.add(work, factor)
    return out


class _Shapes:
    """Orders and noise that are nothing but their shapes."""

    def __init__(self, rows: int, tokens: int, channels: int) -> None:
        self._rows, self._tokens, self._channels = rows, tokens, channels

    def orders(self) -> Tensor:
        return torch.empty(self._rows, self._tokens, dtype=torch.int64, device="meta")

    def draw(self, places: Tensor) -> Tensor:
        return torch.empty(_STEPS, self._rows, places.shape[1], self._channels, device="meta")
