"""What one card does with the model alone: parity of its fast paths, speed by task and batch, memory, parts, presets.

Random weights of the published sizes, made on the device; no Ray, no storage, nothing installed. What the time does
not suffice for is left out and named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from unipic.model.attention import chosen, has_varlen
from unipic.model.bench import measure, random_engine
from unipic.model.cards import CARDS
from unipic.model.config import ReplicaConfig, published, tiny
from unipic.model.cost import image_cost
from unipic.model.engine import CaptionSettings, Engine, GenerateItem, SamplingSettings
from unipic.model.head_sampler import HeadSampler
from unipic.model.memory import Task
from unipic.model.parts import watched
from unipic.model.replay import HeadReplays
from unipic.model.sampling import SamplerOptions

Result = dict[str, Any]
IMAGE_BATCHES, EDIT_BATCHES, CAPTION_BATCHES = (1, 4, 16), (1, 4), (1, 32, 128)
PRESETS: dict[str, dict[str, int]] = {
    "balanced": {"diffusion_steps": 20, "last_diffusion_steps": 10, "guidance_every": 2},
    "fast": {"diffusion_steps": 20, "last_diffusion_steps": 5, "guidance_every": 4, "num_iterations": 16},
}
"""As `pipeline/params.py` resolves them."""


class CardBench:
    """The measurements, in the order of their worth; each gives one entry of the report."""

    def __init__(self, config: ReplicaConfig, *, device: str, sampling: SamplingSettings, tokens: int) -> None:
        self.engine = random_engine(config, device=device, dtype="bfloat16")
        self.sampling = sampling
        self.captioning = CaptionSettings(image_size=sampling.image_size, max_new_tokens=tokens)

    def run(self, seconds: float) -> Result:
        """All that can be begun within so many seconds."""
        began, report, left_out = time.monotonic(), self.facts(), []
        for name, entry in self.entries():
            if time.monotonic() - began > seconds:
                left_out.append(name)
                continue
            try:
                report[name] = entry()
            except torch.OutOfMemoryError:
                report[name] = {"fault": "out of memory"}
        return {**report, "left out": left_out, "took_s": round(time.monotonic() - began, 1)}

    def entries(self) -> Iterator[tuple[str, Callable[[], Result]]]:
        yield "parity of replayed and plain steps", self.parity
        yield self._speed("generate", 1)
        yield "parts of one image", self.parts
        for name in PRESETS:
            yield self._speed("generate", 1, preset=name)
        for batch in CAPTION_BATCHES:
            yield self._speed("caption", batch)
        for batch in IMAGE_BATCHES[1:]:
            yield self._speed("generate", batch)
        for batch in EDIT_BATCHES:
            yield self._speed("edit", batch)
        yield "generate, largest batch", self.largest

    def _speed(self, task: Task, batch: int, *, preset: str = "") -> tuple[str, Callable[[], Result]]:
        settings = replace(self.sampling, **PRESETS[preset]) if preset else self.sampling  # type: ignore[arg-type]
        name = f"{task}, batch {batch}" + (f", {preset}" if preset else "")
        return name, partial(self.speed, task, batch, settings)

    def facts(self) -> Result:
        model = self.engine.model
        on_card = model.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(model.device) if on_card else model.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": chosen(model.device, model.dtype),
            "variable-length attention": has_varlen(),
            "CUDA graphs": on_card,
            "sampling": vars(self.sampling),
        }

    def parity(self) -> Result:
        """The largest difference between replayed, padded steps and a plain loop, on a small head in float32."""
        engine = random_engine(tiny(), device=str(self.engine.model.device), dtype="float32")
        head = engine.model.mar.head
        sampler = HeadSampler(head, steps=20, temperature=1.0)
        generator = torch.Generator(engine.model.device).manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=engine.model.device, generator=generator)

        z, noise = drawn(2 * 13, head.cond_embed.in_features), drawn(20, 13, head.channels)
        with torch.inference_mode():
            plain = sampler.sample(z, noise, guidance=3.0)
            replays = HeadReplays()
            replays.prepare(sampler, sizes=(16,), steps=20, guided=True)
            difference = (replays.sample(sampler, z, noise, guidance=3.0) - plain).abs().max().item()
        return {"largest difference": difference, "holds": difference <= 2e-4}

    def speed(self, task: Task, batch: int, sampling: SamplingSettings) -> Result:
        found = measure(self.engine, task, batch_size=batch, batches=1, sampling=sampling, captioning=self.captioning)
        result: Result = {
            "s_each": round(1 / found.items_per_s, 4),
            "per_s": round(found.items_per_s, 3),
            "peak_gb": round(found.peak_bytes / 1e9, 2),
        }
        if task == "generate":
            result["tflop_per_s"] = round(self._flops_each(sampling) * found.items_per_s / 1e12, 2)
        return result

    def largest(self) -> Result:
        batch = self.engine.max_batch("generate", self.sampling)
        return {"batch": batch, **self.speed("generate", batch, self.sampling)}

    def parts(self) -> Result:
        """Seconds of each part of one image; the host waits after each, so that they add up to more than its whole."""
        clock = _Clock(self.engine)
        with watched(self.engine.model, clock.part):
            self.engine.generate([GenerateItem("a red circle", 0)], self.sampling)
        return {name: round(seconds, 4) for name, seconds in clock.seconds.items()}

    def _flops_each(self, sampling: SamplingSettings) -> float:
        options = SamplerOptions(
            sampling.num_iterations,
            sampling.guidance,
            sampling.guidance_schedule,
            sampling.temperature,
            sampling.diffusion_steps,
            sampling.last_diffusion_steps,
            sampling.guidance_every,
        )
        cost = image_cost(self.engine.config, options, CARDS["h200"], image_size=sampling.image_size)
        return cost.total.flops


class _Clock:
    """Seconds spent in each part, that of its inner parts taken out."""

    def __init__(self, engine: Engine) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._open = engine.model.device, ["rest"]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        before, started = dict(self.seconds), time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        inner = sum(self.seconds.values()) - sum(before.values())
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started - inner


def main(words: list[str] | None = None) -> None:
    """`python -m unipic.model.bench card`."""
    parser = argparse.ArgumentParser(prog="python -m unipic.model.bench card", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no measurement after this time")
    parser.add_argument("--size", choices=("published", "tiny"), default="published")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=32)
    parser.add_argument("--diffusion-steps", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    given = parser.parse_args(words)
    sampling = SamplingSettings(given.image_size, given.iterations, diffusion_steps=given.diffusion_steps)
    config = published() if given.size == "published" else tiny(image_size=given.image_size)
    bench = CardBench(config, device=given.device, sampling=sampling, tokens=given.max_new_tokens)
    report = bench.run(given.minutes * 60)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, value in report.items():
        said = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        print(f"{name:38} {said}")
