"""`unipic init-tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipic.jobs.terminal.options import check_image_size


def make_tiny(
    dst: Annotated[Path, typer.Argument(metavar="DST", help="Folder to create; it must not exist yet.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    image_size: Annotated[int, typer.Option(min=16, help="Image size in pixels that the model is built for.")] = 64,
) -> None:
    """Create a small checkpoint with random weights, for tests.

    It generates an image in milliseconds; the images are noise.

    \b
    Example:
      unipic init-tiny checkpoints/tiny
      unipic plan configs/generate.yaml --set model.checkpoint=checkpoints/tiny
    """
    from unipic.model.checkpoint import CheckpointFault
    from unipic.model.init_tiny import init_tiny
    from unipic.pipeline.errors import CheckpointError

    check_image_size(image_size)
    try:
        digest = init_tiny(dst, seed=seed, image_size=image_size)
    except CheckpointFault as fault:
        raise CheckpointError(str(fault), remedy="Choose a folder that does not exist yet.") from fault
    typer.echo(f"created {dst}, digest {digest[:16]}")
