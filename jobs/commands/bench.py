"""`unipic bench`: how fast things are, measured here and now."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from unipic.jobs.commands.evaluate import Device, Dtype
from unipic.jobs.terminal.options import AsJson, check_device, check_image_size
from unipic.jobs.terminal.words import as_json, size

if TYPE_CHECKING:
    from unipic.model.engine import Engine

app = typer.Typer(help="Measure speed and memory.", rich_markup_mode=None, no_args_is_help=False)

Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Checkpoint to measure; default: a small random one.")
]
ImageSize = Annotated[int, typer.Option(min=16, help="Side of pictures, a multiple of 16.")]
Iterations = Annotated[int, typer.Option(min=1, help="Steps in which a picture is revealed.")]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Diffusion steps.")]


@app.command("pipeline")
def pipeline(
    checkpoint: Checkpoint = None,
    rows: Annotated[int, typer.Option(min=16, help="Pictures in the efficiency run.")] = 512,
    rows_per_unit: Annotated[int, typer.Option(min=1)] = 32,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    units: Annotated[int, typer.Option(min=100, help="Units driven through a replica that does nothing.")] = 10_000,
    image_size: ImageSize = 64,
    iterations: Iterations = 8,
    diffusion_steps: Steps = 20,
    json: AsJson = False,
) -> None:
    """Speed of whole jobs, and what a unit costs.

    Rows/s of a whole job over rows/s of its bare replica, milliseconds of orchestration a unit, and how the driver's
    memory grows with units.

    \b
    Example:
      unipic bench pipeline --units 1000
    """
    from unipic.pipeline.bench.pipeline import efficiency, overhead
    from unipic.pipeline.job import ImageParams

    check_image_size(image_size)
    params = ImageParams(image_size=image_size, num_iterations=iterations, diffusion_steps=diffusion_steps)
    with tempfile.TemporaryDirectory(prefix="unipic-bench-") as folder:
        whole = efficiency(
            str(checkpoint or _tiny(Path(folder), image_size)),
            rows=rows,
            rows_per_unit=rows_per_unit,
            batch_size=batch_size,
            params=params,
        )
    costs = [overhead(count=units // 10, layout="fused"), overhead(count=units)]
    if json:
        typer.echo(as_json({"efficiency": whole, "ratio": whole.ratio, "overhead": costs}))
        return
    _show(
        "Whole job against bare replica",
        ["rows", "job rows/s", "bare rows/s", "ratio"],
        [[f"{whole.rows:,}", f"{whole.job_rows_per_s:.2f}", f"{whole.bare_rows_per_s:.2f}", f"{whole.ratio:.3f}"]],
    )
    _show(
        "A replica that does nothing",
        ["layout", "units", "ms per unit", "driver MiB", "grew by"],
        [
            [
                one.layout,
                f"{one.units:,}",
                f"{one.ms_per_unit:.1f}",
                f"{one.driver_mb[1]:.0f}",
                f"{one.driver_growth_mb:.1f}",
            ]
            for one in costs
        ],
    )


@app.command("plan")
def plan(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the manifest to plan.")] = 10_000_000,
    json: AsJson = False,
) -> None:
    """Planning a large manifest: seconds and memory.

    A Parquet manifest is written to a temporary folder, and planned in a process of its own.

    \b
    Example:
      unipic bench plan --rows 1000000
    """
    from unipic.pipeline.bench.plan import bench_plan

    planned = bench_plan(rows)
    if json:
        typer.echo(as_json(planned))
        return
    facts = [
        f"{planned.rows:,}",
        f"{planned.files:,}",
        size(planned.manifest_bytes),
        f"{planned.units:,}",
        f"{planned.plan_s:.2f}",
        size(planned.memory_growth_bytes),
    ]
    _show("Planning a manifest", ["rows", "files", "size", "units", "seconds", "memory grew by"], [facts])


@app.command("verify")
def verify(
    rows: Annotated[int, typer.Option(min=1_000, help="Captions in the output to audit.")] = 1_000_000,
    json: AsJson = False,
) -> None:
    """Auditing a large output: rows/s, and whether memory grows.

    A sound output of captions is written to a temporary folder, and audited in a process of its own.

    \b
    Example:
      unipic bench verify --rows 100000
    """
    from unipic.pipeline.bench.verify import bench_verify

    found = bench_verify(rows)
    if json:
        typer.echo(as_json({"verify": found, "rows_per_s": found.rows_per_s, "growth_bytes": found.growth_bytes}))
        return
    facts = [
        f"{found.rows:,}",
        f"{found.units:,}",
        f"{found.verify_s:.1f}",
        f"{found.rows_per_s:,.0f}",
        size(found.early_peak_bytes),
        size(found.peak_bytes),
        size(found.growth_bytes),
    ]
    early = f"peak at {found.early_rows:,} rows"
    _show("Auditing an output", ["rows", "units", "seconds", "rows/s", early, "peak in the end", "grew by"], [facts])


@app.command("model")
def model(
    checkpoint: Checkpoint = None,
    random_published: Annotated[
        bool, typer.Option("--random-published", help="The published sizes with random weights, made on the device.")
    ] = False,
    device: Annotated[Device, typer.Option()] = Device.CPU,
    dtype: Annotated[Dtype, typer.Option()] = Dtype.FLOAT32,
    task: Annotated[
        list[str] | None, typer.Option(help="generate, edit, caption; default: all. May be repeated.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="May be repeated; default: 1 and 8.")] = None,
    batches: Annotated[int, typer.Option(min=1, help="Timed batches, after one to warm up.")] = 3,
    image_size: ImageSize = 64,
    iterations: Iterations = 8,
    diffusion_steps: Steps = 20,
    guidance: Annotated[float, typer.Option(min=1.0)] = 3.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    profile: Annotated[bool, typer.Option("--profile", help="Also show where the time of one batch goes.")] = False,
    json: AsJson = False,
) -> None:
    """Speed and memory of one replica, by task and batch size.

    \b
    Examples:
      unipic bench model --checkpoint checkpoints/tiny --batch-size 1 --batch-size 16
      unipic bench model --random-published --device cuda --dtype bfloat16 \\
        --image-size 1024 --iterations 32 --diffusion-steps 100
    """
    from unipic.model import bench
    from unipic.model.engine import CaptionSettings, SamplingSettings
    from unipic.pipeline.errors import JobError

    unknown = sorted(set(task or ()) - set(bench.TASKS))
    if unknown:
        raise JobError(f"--task must be {', '.join(bench.TASKS)}; got {', '.join(unknown)}")
    chosen = [one for one in bench.TASKS if one in (task or bench.TASKS)]
    check_device(device.value)
    check_image_size(image_size)
    sampling = SamplingSettings(
        image_size=image_size, num_iterations=iterations, guidance=guidance, diffusion_steps=diffusion_steps
    )
    captioning = CaptionSettings(image_size=image_size, max_new_tokens=max_new_tokens)
    engine = _engine(
        checkpoint,
        random_published=random_published,
        device=device.value,
        dtype=dtype.value,
        image_size=image_size,
    )
    sizes = batch_size or [1, 8]
    measured = list(
        bench.measure_all(
            engine, batch_sizes=sizes, batches=batches, sampling=sampling, captioning=captioning, chosen=chosen
        )
    )
    if json:
        typer.echo(as_json(measured))
    else:
        _show(
            f"One replica, {image_size} px, {iterations} iterations, {diffusion_steps} diffusion steps, {dtype.value}",
            ["task", "batch", "per s", "s each", "peak memory", "device"],
            [
                [
                    m.task,
                    str(m.batch_size),
                    f"{m.items_per_s:.2f}",
                    f"{1 / m.items_per_s:.3f}",
                    size(m.peak_bytes),
                    m.device,
                ]
                for m in measured
            ],
        )
    if profile:
        for one in chosen:
            typer.echo(
                bench.profile(engine, one, batch_size=sizes[-1], sampling=sampling, captioning=captioning), err=json
            )


def _engine(checkpoint: Path | None, *, random_published: bool, device: str, dtype: str, image_size: int) -> Engine:
    from unipic.model.bench import random_engine
    from unipic.model.checkpoint import CheckpointFault
    from unipic.model.config import published
    from unipic.model.engine import Engine
    from unipic.pipeline.errors import CheckpointError

    if random_published:
        return random_engine(published(), device=device, dtype=dtype)
    try:
        with tempfile.TemporaryDirectory(prefix="unipic-bench-") as folder:
            return Engine.load(checkpoint or _tiny(Path(folder), image_size), device=device, dtype=dtype)
    except CheckpointFault as fault:
        raise CheckpointError(str(fault)) from fault


def _tiny(folder: Path, image_size: int) -> Path:
    from unipic.model.init_tiny import init_tiny

    init_tiny(folder / "tiny", image_size=image_size)
    return folder / "tiny"


def _show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
