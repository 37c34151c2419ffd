"""`unipic bench cost`: what an image or a caption costs on a card, counted without one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from unipic.jobs.terminal.formatting import as_json, size
from unipic.jobs.terminal.options import AsJson, check_image_size

if TYPE_CHECKING:
    from unipic.model.cost import Cost


class CardName(StrEnum):
    H200 = "h200"
    H100 = "h100"
    A100 = "a100"


class Size(StrEnum):
    PUBLISHED = "published"
    TINY = "tiny"


class CostTask(StrEnum):
    GENERATE = "generate"
    EDIT = "edit"
    CAPTION = "caption"


def cost(
    task: Annotated[CostTask, typer.Option()] = CostTask.GENERATE,
    model_size: Annotated[Size, typer.Option("--size", help="Sizes of the model.")] = Size.PUBLISHED,
    card: Annotated[CardName, typer.Option(help="Card whose data sheet gives the times.")] = CardName.H200,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that run at once.")] = 1,
    image_size: Annotated[int, typer.Option(min=16, help="Image size in pixels, a multiple of 16.")] = 1024,
    iterations: Annotated[int, typer.Option(min=1, help="Steps in which an image is revealed.")] = 32,
    diffusion_steps: Annotated[int, typer.Option(min=1, max=1000, help="Diffusion steps.")] = 100,
    guidance: Annotated[float, typer.Option(min=1.0)] = 3.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens per caption.")] = 256,
    graphs: Annotated[bool, typer.Option(help="Replay the head's steps and a caption's tokens as CUDA graphs.")] = True,
    json: AsJson = False,
) -> None:
    """Count what a batch costs on a card: kernel launches, arithmetic, memory traffic, largest tensor, by part.

    Nothing runs on a device and no memory is needed. The times are arithmetic from the card's data sheet, not
    measurements.

    \b
    Examples:
      unipic bench cost
      unipic bench cost --task caption --batch-size 128 --card a100
    """
    from unipic.model.cards import CARDS
    from unipic.model.config import published, tiny
    from unipic.model.cost import caption_cost, image_cost
    from unipic.model.sampling import SamplerOptions

    check_image_size(image_size)
    config = published() if model_size is Size.PUBLISHED else tiny()
    chosen = CARDS[card.value]
    if task is CostTask.CAPTION:
        found = caption_cost(
            config, chosen, image_size=image_size, batch=batch_size, tokens=max_new_tokens, graphs=graphs
        )
    else:
        options = SamplerOptions(iterations, guidance, "constant", 1.0, diffusion_steps)
        found = image_cost(
            config,
            options,
            chosen,
            image_size=image_size,
            batch=batch_size,
            task="edit" if task is CostTask.EDIT else "generate",
            graphs=graphs,
        )
    if json:
        typer.echo(as_json({"cost": found, "computed_s_each": found.seconds_each}))
        return
    _show(found)


def _show(found: Cost) -> None:
    title = f"A batch of {found.batch} on one {found.card}; times are computed, not measured"
    table = Table(title=title, title_justify="left")
    for heading in ("part", "launches", "TFLOP", "moved", "kernels ms", "launches ms", "largest tensor"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for one in found.parts:
        table.add_row(
            one.part,
            f"{one.work.launches:,.0f}",
            f"{one.work.flops / 1e12:,.1f}",
            size(int(one.work.moved_bytes)),
            f"{one.busy_s * 1e3:,.0f}",
            f"{one.launch_s * 1e3:,.0f}",
            f"{size(one.work.largest_bytes)} {'×'.join(map(str, one.work.largest))}",
        )
    Console().print(table)
    total = found.total
    typer.echo(
        f"{total.launches:,.0f} launches, {total.flops / 1e12:,.1f} TFLOP; computed: {found.seconds_each:.3f} s each"
    )
