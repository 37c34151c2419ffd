"""`unipic convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import progress as bars
from rich.console import Console

from unipic.jobs.terminal.formatting import as_json, size
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson

if TYPE_CHECKING:
    from unipic.model.convert import ConvertReport

Heads = Annotated[int, typer.Option(min=1, help="Attention heads; the tensors do not record them. Published: 16.")]


def convert_checkpoint(
    src: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="Folder of the published checkpoint: pytorch_model.bin, kl16.ckpt, the LLM."
        ),
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="Folder to create; it must not exist yet.")],
    encoder_heads: Heads = 16,
    decoder_heads: Heads = 16,
    vae_scale: Annotated[float, typer.Option(help="Scale of the latents. Published: 0.2325.")] = 0.2325,
    vae_norm_groups: Annotated[int, typer.Option(min=1, help="Groups of the VAE's norms. Published: 32.")] = 32,
    json: AsJson = False,
) -> None:
    """Convert the published checkpoint.

    Writes safetensors, one config.json, the tokenizer and digests. From the published pickles it reads only tensors.
    DST appears when it is complete.

    \b
    Example:
      unipic convert downloads/UniPic-1.5B checkpoints/unipic-1.5b
    """
    from unipic.model.checkpoint import CheckpointFault
    from unipic.model.convert import convert
    from unipic.pipeline.errors import CheckpointError

    console = Console(stderr=True, highlight=False)
    text = bars.TextColumn("{task.description}")
    columns = (bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn(), text)
    try:
        with bars.Progress(*columns, console=console, disable=not console.is_terminal) as live:
            bar = live.add_task("reading", total=None)
            report = convert(
                src,
                dst,
                encoder_heads=encoder_heads,
                decoder_heads=decoder_heads,
                vae_scale=vae_scale,
                vae_norm_groups=vae_norm_groups,
                progress=lambda name, done, total: live.update(bar, description=name, completed=done, total=total),
            )
    except CheckpointFault as fault:
        raise CheckpointError(str(fault)) from fault
    if json:
        typer.echo(as_json(report))
        return
    _print(dst, report)


def _print(dst: Path, report: ConvertReport) -> None:
    say(f"created {dst}: {report.tensors} tensors, {size(report.weight_bytes)}, digest {report.digest[:16]}")
    if report.skipped:
        shown = ", ".join(sorted({name.split(".")[0] if "siglip" in name else name for name in report.skipped}))
        say(f"skipped {len(report.skipped)} tensors that inference does not use ({shown})")
