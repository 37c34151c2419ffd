"""`unipic evaluate`."""

from __future__ import annotations

import os
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.exits import STOPPED
from unipic.jobs.terminal.options import check_device
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    from unipic.jobs.shapes.evaluation import Sizes
    from unipic.jobs.shapes.questions import Settings

app = typer.Typer(help="Measure how good a checkpoint is.", rich_markup_mode=None, no_args_is_help=False)


class Schedule(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


@app.callback()
def evaluate() -> None:
    """Measure how good a checkpoint is."""


@app.command("shapes")
def shapes(
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoint to judge; default: the one that ships.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path("shapes-evaluation"),
    prompts: Annotated[int, typer.Option(min=1, help="At least so many pictures from prompts.")] = 1200,
    captions: Annotated[int, typer.Option(min=1, help="At least so many captions.")] = 600,
    edits: Annotated[int, typer.Option(min=1, help="At least so many edits.")] = 600,
    sample: Annotated[int | None, typer.Option(min=1, help="So many of each instead, for a quick look.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the questions and all that is random in the answers.")] = 1,
    num_iterations: Annotated[int, typer.Option(min=1, help="Steps in which a picture is revealed.")] = 16,
    diffusion_steps: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    guidance: Annotated[float, typer.Option(min=1.0, help="1 turns it off.")] = 3.0,
    guidance_schedule: Annotated[Schedule, typer.Option()] = Schedule.CONSTANT,
    temperature: Annotated[float, typer.Option(min=0.0, help="Scale of the head's noise.")] = 1.0,
    dtype: Annotated[Dtype, typer.Option()] = Dtype.FLOAT32,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per micro-batch.")] = 32,
    replicas: Annotated[int | None, typer.Option(min=1, help="Default: 1, or on CPUs 1 a core up to 4.")] = None,
    device: Annotated[Device, typer.Option()] = Device.CPU,
    untrained: Annotated[
        bool, typer.Option(help="Also judge the same sizes without training, on a smaller sample.")
    ] = True,
) -> None:
    """Score all three tasks on the shapes world, through the whole pipeline.

    Prompts in GenEval's six tasks, pictures to describe and pictures to edit are written as manifests, run as three
    jobs, read back, and judged by a detector that shares nothing with the model. Cases that show combinations which
    training never shows are scored apart, as held out. Beside the scores stand two that should be near nothing: each
    answer judged by another case's question, and an untrained checkpoint's answers.

    Prints tables; writes scores.json, verdicts.jsonl (every case) and report.html (pictures) to the output folder.
    The same command again does only what is left; other settings need another --output.

    \b
    Examples:
      unipic evaluate shapes
      unipic evaluate shapes --diffusion-steps 25 --num-iterations 8 --output fast      what speed costs
      unipic evaluate shapes --checkpoint checkpoints/mine --sample 100
    """
    from unipic.jobs.shapes.questions import Settings

    settings = Settings(
        checkpoint=_chosen(checkpoint),
        dtype=dtype.value,
        device=device.value,
        image={
            "num_iterations": num_iterations,
            "diffusion_steps": diffusion_steps,
            "guidance": guidance,
            "guidance_schedule": guidance_schedule.value,
            "temperature": temperature,
            "seed": seed,
        },
        compute={
            "gpus_per_replica": 1 if device is Device.CUDA else 0,
            "batch_size": batch_size,
            "rows_per_unit": max(32, batch_size),
        },
        replicas=replicas or (1 if device is Device.CUDA else min(4, os.cpu_count() or 1)),
    )
    _refuse_faults(settings, output)
    check_device(device.value)
    sizes = (sample, sample, sample) if sample else (prompts, captions, edits)
    _evaluate(sizes, output=output, settings=settings, seed=seed, untrained=untrained)


def _chosen(checkpoint: Path | None) -> Path:
    """The checkpoint to judge.

    Raises:
        JobError: none is named and none ships.
    """
    from unipic.model.tiny.shipped import shipped_checkpoint
    from unipic.pipeline.errors import JobError

    chosen = checkpoint or shipped_checkpoint()
    if chosen is None:
        raise JobError("no trained checkpoint ships with this version", remedy="Name one with --checkpoint.")
    return chosen


def _refuse_faults(settings: Settings, output: Path) -> None:
    """Raises SpecError where an option's value is none that a job takes."""
    from pydantic import ValidationError

    from unipic.jobs.shapes.questions import TASKS
    from unipic.jobs.spec import sentences
    from unipic.jobs.spec.load import JOBS
    from unipic.pipeline.errors import SpecError

    said: dict[str, None] = {}
    for task in TASKS:
        values = settings.job(task, output, rows=1)
        try:
            JOBS[task].model_validate(values)
        except ValidationError as error:
            errors = list(error.errors(include_url=False))
            for place, message in sentences.faults(errors, values=values, plain={}, job_type=JOBS[task]):
                said[f"--{place[-1].replace('_', '-')}: {message}"] = None
    if said:
        raise SpecError("\n".join(said), remedy="See `unipic evaluate shapes --help`.")


def _evaluate(sizes: Sizes, *, output: Path, settings: Settings, seed: int, untrained: bool) -> None:
    from unipic.jobs.shapes.evaluation import NotDone, evaluate, lead, write
    from unipic.jobs.shapes.score_tables import show, tables

    with Display() as display, Signals(threading.Event(), display.say) as signals:
        try:
            evaluation = evaluate(
                sizes,
                output=output,
                settings=settings,
                seed=seed,
                untrained=untrained,
                display=display,
                signals=signals,
            )
        except NotDone as ended:
            display.say(f"not evaluated: {ended}; the same command goes on from there")
            raise typer.Exit(ended.code) from None
        except KeyboardInterrupt:
            display.say("left at once; what is committed stays, the same command goes on from there")
            raise typer.Exit(STOPPED) from None
    write(evaluation, output)
    show(tables(evaluation.lines))
    for text in (*lead(evaluation), f"pictures and verdicts: {output / 'report.html'}"):
        typer.echo(text)
