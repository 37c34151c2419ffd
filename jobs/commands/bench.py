"""`unipic bench`: speed and memory on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from unipic.jobs.commands.bench_compact import compact
from unipic.jobs.commands.bench_cost import cost
from unipic.jobs.commands.bench_output import requests, scale, verify
from unipic.jobs.commands.evaluate import Device, Dtype
from unipic.jobs.terminal.formatting import as_json, size
from unipic.jobs.terminal.global_options import with_global_options
from unipic.jobs.terminal.options import AsJson, check_device, check_image_size

if TYPE_CHECKING:
    from unipic.model.bench import Measurement, Task
    from unipic.model.engine import Engine
    from unipic.pipeline.bench.pipeline import Overhead

app = typer.Typer(help="Measure speed and memory.", rich_markup_mode=None, no_args_is_help=False)
app.command("cost")(with_global_options(cost))
app.command("compact")(with_global_options(compact))
app.command("verify")(with_global_options(verify))
app.command("scale")(with_global_options(scale))
app.command("requests")(with_global_options(requests))

Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Checkpoint to measure; default: a small random one.")
]
ImageSize = Annotated[int, typer.Option(min=16, help="Image size in pixels, a multiple of 16.")]
Iterations = Annotated[int, typer.Option(min=1, help="Steps in which an image is revealed.")]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Diffusion steps.")]
RandomPublished = Annotated[
    bool, typer.Option("--random-published", help="Measure the published sizes with random weights.")
]
Tasks = Annotated[list[str] | None, typer.Option(help="generate, edit, caption; default: all. May be repeated.")]
BatchSizes = Annotated[list[int] | None, typer.Option(help="May be repeated; default: 1 and 8.")]
Profile = Annotated[bool, typer.Option("--profile", help="Also profile one batch.")]


@app.command("pipeline")
@with_global_options
def pipeline(
    checkpoint: Checkpoint = None,
    rows: Annotated[int, typer.Option(min=16, help="Images in the efficiency run.")] = 512,
    rows_per_unit: Annotated[int, typer.Option(min=1)] = 32,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    units: Annotated[
        int, typer.Option(min=100, help="Units in the overhead run, whose replica does nothing.")
    ] = 10_000,
    image_size: ImageSize = 64,
    iterations: Iterations = 8,
    diffusion_steps: Steps = 20,
    json: AsJson = False,
) -> None:
    """Measure whole jobs, and the overhead per unit.

    Reports the speed of a whole job relative to its replica alone, milliseconds of overhead per unit, and memory
    growth of the driver.

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
    figures = [f"{whole.rows:,}", f"{whole.job_rows_per_s:.2f}", f"{whole.bare_rows_per_s:.2f}", f"{whole.ratio:.3f}"]
    _show("Whole job and replica alone", ["rows", "job rows/s", "replica rows/s", "ratio"], [figures])
    _show(
        "Overhead per unit",
        ["layout", "units", "ms per unit", "driver MiB", "growth MiB"],
        [_overhead_row(cost) for cost in costs],
    )


def _overhead_row(cost: Overhead) -> list[str]:
    memory = [f"{cost.driver_mb[1]:.0f}", f"{cost.driver_growth_mb:.1f}"]
    return [cost.layout, f"{cost.units:,}", f"{cost.ms_per_unit:.1f}", *memory]


@app.command("plan")
@with_global_options
def plan(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the manifest to plan.")] = 10_000_000,
    json: AsJson = False,
) -> None:
    """Measure planning of a large manifest.

    Writes a Parquet manifest to a temporary folder and plans it in a separate process.

    \b
    Example:
      unipic bench plan --rows 1000000
    """
    from unipic.pipeline.bench.plan import bench_plan

    planned = bench_plan(rows)
    if json:
        typer.echo(as_json(planned))
        return
    figures = [
        f"{planned.rows:,}",
        f"{planned.files:,}",
        size(planned.manifest_bytes),
        f"{planned.units:,}",
        f"{planned.plan_s:.2f}",
        size(planned.memory_growth_bytes),
    ]
    _show("Planning a manifest", ["rows", "files", "size", "units", "seconds", "memory growth"], [figures])


@app.command("model")
@with_global_options
def model(
    checkpoint: Checkpoint = None,
    random_published: RandomPublished = False,
    device: Annotated[Device, typer.Option()] = Device.CPU,
    dtype: Annotated[Dtype, typer.Option()] = Dtype.FLOAT32,
    task: Tasks = None,
    batch_size: BatchSizes = None,
    batches: Annotated[int, typer.Option(min=1, help="Timed batches, after one to warm up.")] = 3,
    image_size: ImageSize = 64,
    iterations: Iterations = 8,
    diffusion_steps: Steps = 20,
    guidance: Annotated[float, typer.Option(min=1.0)] = 3.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    profile: Profile = False,
    json: AsJson = False,
) -> None:
    """Measure one replica by task and batch size.

    \b
    Examples:
      unipic bench model --checkpoint checkpoints/tiny --batch-size 1 --batch-size 16
      unipic bench model --random-published --device cuda --dtype bfloat16 \\
        --image-size 1024 --iterations 32 --diffusion-steps 100
    """
    from unipic.model import bench
    from unipic.model.engine import CaptionSettings, SamplingSettings

    tasks = _tasks(task)
    check_device(device.value)
    check_image_size(image_size)
    sampling = SamplingSettings(
        image_size=image_size, num_iterations=iterations, guidance=guidance, diffusion_steps=diffusion_steps
    )
    captioning = CaptionSettings(image_size=image_size, max_new_tokens=max_new_tokens)
    engine = _engine(
        checkpoint, random_published=random_published, device=device.value, dtype=dtype.value, image_size=image_size
    )
    sizes = batch_size or [1, 8]
    measured = list(
        bench.measure_all(
            engine, batch_sizes=sizes, batches=batches, sampling=sampling, captioning=captioning, chosen=tasks
        )
    )
    setting = f"{image_size} px, {iterations} iterations, {diffusion_steps} diffusion steps, {dtype.value}"
    _show_model(f"One replica, {setting}", measured, json=json)
    for name in tasks if profile else ():
        text = bench.profile(engine, name, batch_size=sizes[-1], sampling=sampling, captioning=captioning)
        typer.echo(text, err=json)


def _tasks(requested: Sequence[str] | None) -> list[Task]:
    from unipic.model import bench
    from unipic.pipeline.errors import JobError

    unknown = sorted(set(requested or ()) - set(bench.TASKS))
    if unknown:
        raise JobError(f"--task must be {', '.join(bench.TASKS)}; got {', '.join(unknown)}")
    return [name for name in bench.TASKS if name in (requested or bench.TASKS)]


def _show_model(title: str, measured: Sequence[Measurement], *, json: bool) -> None:
    if json:
        typer.echo(as_json(measured))
        return
    rows = [
        [
            row.task,
            str(row.batch_size),
            f"{row.items_per_s:.2f}",
            f"{1 / row.items_per_s:.3f}",
            size(row.peak_bytes),
            row.device,
        ]
        for row in measured
    ]
    _show(title, ["task", "batch", "per s", "s each", "peak memory", "device"], rows)


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


def _show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
