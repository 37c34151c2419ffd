"""`unipic train-tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipic.jobs.commands.evaluate import Device
from unipic.jobs.terminal.exit_codes import RESUME, STOPPED
from unipic.jobs.terminal.options import check_device


def train_tiny(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the checkpoint; it must not exist yet.")],
    work: Annotated[
        Path, typer.Option(metavar="FOLDER", help="State kept between runs: weights, latents, sample images.")
    ],
    device: Annotated[Device, typer.Option()] = Device.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Arithmetic threads on a CPU.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes, the first weights and the noise.")] = 0,
) -> None:
    """Train the small checkpoint of the shapes world.

    Trains the autoencoder first, then generation, edits and captions together. It draws its own data and needs about
    4 GB of memory: two to three hours on two CPU cores (--threads 2), or minutes on a GPU. It prints losses and saves
    sample images to the work folder. Stop it at any time; the same command resumes, and gives the same weights on the
    same hardware.

    \b
    Examples:
      unipic train-tiny checkpoints/mine --work training --device cuda
      unipic evaluate shapes --checkpoint checkpoints/mine
    """
    from unipic.pipeline.errors import JobError

    if out.exists():
        raise JobError(f"{out} already exists", remedy="Choose a folder that does not exist yet.")
    import torch

    from unipic.model.tiny.training.train import train
    from unipic.model.tiny.training.train_joint import JointRecipe
    from unipic.model.tiny.training.train_vae import VaeRecipe

    check_device(device.value)
    torch.set_num_threads(threads)
    vae_recipe, joint_recipe = VaeRecipe(seed=seed), JointRecipe(seed=seed)
    try:
        digest = train(out, work=work, device=device.value, vae_recipe=vae_recipe, joint_recipe=joint_recipe)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: the work folder holds the last state; {RESUME}", err=True)
        raise typer.Exit(STOPPED) from None
    typer.echo(f"created {out}, digest {digest[:16]}")
