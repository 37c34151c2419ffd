"""Writes `own_oracle.safetensors`: what this code answers for the tiny random checkpoint, to notice when it changes.

Run from the root of the repository, after the numbers agree with the published code's: `python
tests/model/make_own_oracle.py`. The published code's own numbers are held by `tests/parity`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from unipic.model import tasks
from unipic.model.engine import CaptionItem, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from unipic.model.init_tiny import init_tiny
from unipic.model.pixels import to_tensor

FILE = Path(__file__).with_name("own_oracle.safetensors")
SAMPLING = SamplingSettings(image_size=64, num_iterations=6, diffusion_steps=12, guidance_schedule="linear")
CAPTIONING = CaptionSettings(image_size=64, max_new_tokens=16)


def answers(engine: Engine) -> dict[str, torch.Tensor]:
    """Numbers of every part and task, from fixed seeds."""
    generator = np.random.Generator(np.random.Philox(key=9))
    pictures = list(generator.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    generated = [GenerateItem("a red circle", 1), GenerateItem("two small stars above a large ring", 2)]
    edited = [EditItem("make it blue", picture, seed) for seed, picture in enumerate(pictures)]
    asked = [CaptionItem("Describe the image in detail.", pictures[0]), CaptionItem("what colour", pictures[1])]
    prompts = [engine.prompts.caption(item.question) for item in asked]
    with torch.inference_mode():
        latents = tasks.encode(engine.model, to_tensor(pictures))
        x, z = engine.model.see(latents, engine.model.mar.positions(4))
        embeddings, lengths = tasks.caption_prompts(engine.model, prompts, pixels=to_tensor(pictures))
        logits = engine.model.llm.logits(engine.model.llm.read_prompts(embeddings, lengths)[1])
    ids = tasks.caption(engine.model, prompts, pixels=to_tensor(pictures), end_id=-1, max_new_tokens=16)
    numbers = {
        "latents": latents,
        "x_enc": x,
        "z_enc": z,
        "next_logits": logits,
        "caption_ids": torch.tensor(ids),
        "generated": torch.from_numpy(engine.generate(generated, SAMPLING)),
        "edited": torch.from_numpy(engine.edit(edited, SAMPLING)),
    }
    return {name: values.clone().contiguous() for name, values in numbers.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        init_tiny(Path(folder) / "checkpoint")
        save_file(answers(Engine.load(Path(folder) / "checkpoint")), FILE)
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")
