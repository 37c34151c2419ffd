"""Trains the small checkpoint from scratch: `python -m unipic.model.tiny.training.train OUT --work WORK`.

Training is seeded. WORK keeps its state, so the same command resumes it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unipic.model import tensorfile
from unipic.model.checkpoint import CONFIG_FILE, TOKENIZER_FOLDER, VAE_FILE, WEIGHTS_FILE, write_digests
from unipic.model.config import to_json
from unipic.model.loading import VAE_PREFIX
from unipic.model.prompts import PromptWriter
from unipic.model.tiny.training.pool import Batches, build_pool, encode_scenes
from unipic.model.tiny.training.sizes import tiny_config
from unipic.model.tiny.training.train_joint import JointRecipe, initialise, train_joint
from unipic.model.tiny.training.train_vae import VaeRecipe, train_vae
from unipic.model.tiny.training.vocabulary import vocabulary_size, write_vocabulary
from unipic.model.tiny.training.whiten import whiten
from unipic.model.unipic import UniPic


def export(model: UniPic, folder: Path) -> str:
    """Writes a checkpoint to a new folder, weights in float16; returns its digest."""
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(to_json(model.config), encoding="utf-8")
    halves = {name: weight.to("cpu", torch.float16) for name, weight in model.state_dict().items()}
    vae = {name.removeprefix(VAE_PREFIX): halves.pop(name) for name in list(halves) if name.startswith(VAE_PREFIX)}
    tensorfile.write(folder / WEIGHTS_FILE, halves)
    tensorfile.write(folder / VAE_FILE, vae)
    write_vocabulary(folder / TOKENIZER_FOLDER)
    return write_digests(folder).checkpoint


def train(out: Path, *, work: Path, device: str, vae_recipe: VaeRecipe, joint_recipe: JointRecipe) -> str:
    """Trains both stages, then writes the checkpoint to `out`, which must not exist; returns its digest."""
    if out.exists():
        raise FileExistsError(f"{out} already exists")
    work.mkdir(parents=True, exist_ok=True)
    config = tiny_config(scale=1.0, vocab_size=vocabulary_size())
    vae = train_vae(config.vae, recipe=vae_recipe, state=work / "vae.pt", device=device, report=_say)
    vae.eval().requires_grad_(False)
    vocabulary = work / TOKENIZER_FOLDER
    if not vocabulary.is_dir():
        write_vocabulary(vocabulary)
    pool = build_pool(
        edits_per_kind=joint_recipe.edits_per_kind,
        scenes_per_task=joint_recipe.scenes_per_task,
        seed=joint_recipe.seed,
    )
    encoded = work / "latents.pt"
    if not encoded.exists():
        torch.save(encode_scenes(vae, pool.scenes, device=device, report=_say), encoded)
    latents = whiten(vae, torch.load(encoded, weights_only=True))
    torch.manual_seed(joint_recipe.seed)
    model = UniPic(config)
    initialise(model)
    model.vae.load_state_dict(vae.state_dict())
    model.to(device)
    average = train_joint(
        model,
        Batches(pool, latents, PromptWriter(vocabulary), device=device),
        recipe=joint_recipe,
        state=work / "joint.pt",
        report=_say,
        show=_show_samples(work),
    )
    return export(average, out)


def _show_samples(work: Path) -> Callable[[UniPic, int], None]:
    def show(model: UniPic, step: int) -> None:
        from unipic.model.tiny.training.evaluate import sample_sheet

        folder = work / "now"
        shutil.rmtree(folder, ignore_errors=True)
        export(model, folder)
        sheet, lines = sample_sheet(folder)
        Image.fromarray(np.asarray(sheet)).save(work / f"samples-{step:06d}.png")
        _say(lines)

    return show


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the checkpoint, which must not exist")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept between runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    digest = train(
        given.out,
        work=given.work,
        device=given.device,
        vae_recipe=VaeRecipe(seed=given.seed),
        joint_recipe=JointRecipe(seed=given.seed),
    )
    _say(f"{given.out}: {digest}")


if __name__ == "__main__":
    main()
