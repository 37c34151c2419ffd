"""`unipic evaluate`: the quality of a checkpoint."""

from __future__ import annotations

import os
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipic.jobs.terminal.exit_codes import INTERRUPTED, RESUME, STOPPED
from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.global_options import with_global_options
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson, check_device
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    from unipic.jobs.shapes.evaluation import Evaluation, Sizes
    from unipic.jobs.shapes.questions import Settings

app = typer.Typer(help="Measure the quality of a checkpoint.", rich_markup_mode=None, no_args_is_help=False)


class Schedule(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Checkpoint to evaluate; default: the one that ships.")
]
Output = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for all results.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Use this many of each instead, for a quick look.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the questions and of the answers.")]
Iterations = Annotated[int, typer.Option(min=1, help="Steps in which an image is revealed.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Scale of the head's noise.")]
Replicas = Annotated[int | None, typer.Option(min=1, help="Default: 1 on a GPU, else one per core, at most 4.")]
Presets = Annotated[
    bool, typer.Option("--presets", help="Evaluate every preset, each in its own folder of the output, side by side.")
]
Untrained = Annotated[bool, typer.Option(help="Also evaluate an untrained twin, on a smaller sample.")]


@app.callback()
def evaluate() -> None:
    """Measure the quality of a checkpoint."""


@app.command("shapes")
@with_global_options
def shapes(
    checkpoint: Checkpoint = None,
    output: Output = Path("shapes-evaluation"),
    prompts: Annotated[int, typer.Option(min=1, help="Images from prompts, at least.")] = 1200,
    captions: Annotated[int, typer.Option(min=1, help="Captions, at least.")] = 600,
    edits: Annotated[int, typer.Option(min=1, help="Edits, at least.")] = 600,
    sample: Sample = None,
    seed: Seed = 1,
    num_iterations: Iterations = 16,
    diffusion_steps: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    guidance: Annotated[float, typer.Option(min=1.0, help="1 turns it off.")] = 3.0,
    guidance_schedule: Annotated[Schedule, typer.Option()] = Schedule.CONSTANT,
    temperature: Temperature = 1.0,
    dtype: Annotated[Dtype, typer.Option()] = Dtype.FLOAT32,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per micro-batch.")] = 32,
    replicas: Replicas = None,
    device: Annotated[Device, typer.Option()] = Device.CPU,
    untrained: Untrained = True,
    presets: Presets = False,
    json: AsJson = False,
) -> None:
    """Score all three tasks on the shapes world, through the whole pipeline.

    Runs prompts in GenEval's six tasks, captions and edits as three jobs. A detector that is independent of the model
    scores the outputs, and combinations that training never shows apart. Two control scores should be near zero.

    Prints tables; writes scores.json, verdicts.jsonl (every case) and report.html (images) to the output folder.
    The same command resumes. Other settings need another --output.

    \b
    Examples:
      unipic evaluate shapes --diffusion-steps 25 --num-iterations 8 --output fast
      unipic evaluate shapes --checkpoint checkpoints/mine --sample 100
      unipic evaluate shapes --presets --output presets
    """
    image = {
        "num_iterations": num_iterations,
        "diffusion_steps": diffusion_steps,
        "guidance": guidance,
        "guidance_schedule": guidance_schedule.value,
        "temperature": temperature,
        "seed": seed,
    }
    settings = _settings(checkpoint, image, device, dtype, batch_size=batch_size, replicas=replicas)
    _check_settings(settings, output)
    sizes = (sample, sample, sample) if sample else (prompts, captions, edits)
    if presets:
        _evaluate_presets(sizes, output=output, settings=settings, seed=seed, json=json)
        return
    _show(_evaluate(sizes, output=output, settings=settings, seed=seed, untrained=untrained), output, json=json)


def _settings(
    checkpoint: Path | None,
    image: dict[str, Any],
    device: Device,
    dtype: Dtype,
    *,
    batch_size: int,
    replicas: int | None,
) -> Settings:
    from unipic.jobs.shapes.questions import Settings

    on_gpu = device is Device.CUDA
    return Settings(
        checkpoint=_checkpoint(checkpoint),
        dtype=dtype.value,
        device=device.value,
        image=image,
        compute={
            "gpus_per_replica": 1 if on_gpu else 0,
            "batch_size": batch_size,
            "rows_per_unit": max(32, batch_size),
        },
        replicas=replicas or (1 if on_gpu else min(4, os.cpu_count() or 1)),
    )


def _checkpoint(folder: Path | None) -> Path:
    """The checkpoint to evaluate.

    Raises:
        JobError: none was given, and the package contains none.
    """
    from unipic.model.tiny.shipped import shipped_checkpoint
    from unipic.pipeline.errors import JobError

    checkpoint = folder or shipped_checkpoint()
    if checkpoint is None:
        raise JobError("this version ships without a trained checkpoint", remedy="Name one with --checkpoint.")
    return checkpoint


def _check_settings(settings: Settings, output: Path) -> None:
    """Raises SpecError for an option value that a job does not accept, JobError for a GPU that is not there."""
    from pydantic import ValidationError

    from unipic.jobs.shapes.questions import TASKS
    from unipic.jobs.spec import sentences
    from unipic.jobs.spec.load import JOBS
    from unipic.pipeline.errors import SpecError

    faults: dict[str, None] = {}
    for task in TASKS:
        values = settings.job(task, output, rows=1)
        try:
            JOBS[task].model_validate(values)
        except ValidationError as error:
            errors = list(error.errors(include_url=False))
            for place, message in sentences.faults(errors, values=values, plain={}, job_type=JOBS[task]):
                faults[f"--{place[-1].replace('_', '-')}: {message}"] = None
    if faults:
        raise SpecError("\n".join(faults), remedy="See `unipic evaluate shapes --help`.")
    check_device(settings.device)


def _evaluate_presets(sizes: Sizes, *, output: Path, settings: Settings, seed: int, json: bool) -> None:
    from unipic.jobs.shapes.evaluation import as_facts
    from unipic.jobs.shapes.presets import preset_tables, with_preset
    from unipic.jobs.shapes.score_tables import show
    from unipic.pipeline.params import PRESETS

    found = {
        name: _evaluate(sizes, output=output / name, settings=with_preset(settings, name), seed=seed, untrained=False)
        for name in PRESETS
    }
    if json:
        typer.echo(as_json({name: as_facts(evaluation) for name, evaluation in found.items()}))
    else:
        show(preset_tables(found))


def _evaluate(sizes: Sizes, *, output: Path, settings: Settings, seed: int, untrained: bool) -> Evaluation:
    from unipic.jobs.shapes.evaluation import Incomplete, evaluate, write

    with Display() as display, Signals(threading.Event(), display.print) as signals:
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
        except Incomplete as ended:
            display.print(f"not evaluated: {ended}; {RESUME}")
            raise typer.Exit(ended.code) from None
        except KeyboardInterrupt:
            display.print(INTERRUPTED)
            raise typer.Exit(STOPPED) from None
    write(evaluation, output)
    return evaluation


def _show(evaluation: Evaluation, output: Path, *, json: bool) -> None:
    from unipic.jobs.shapes.evaluation import as_facts, summary
    from unipic.jobs.shapes.score_tables import show, tables

    if json:
        typer.echo(as_json(as_facts(evaluation)))
        return
    show(tables(evaluation.scores))
    for text in (*summary(evaluation), f"report: {output / 'report.html'}"):
        say(text)
