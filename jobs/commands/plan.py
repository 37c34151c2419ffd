"""`unipic plan`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipic.jobs.terminal.formatting import as_json, count, duration, size
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson, JobFile, Set
from unipic.jobs.terminal.steps import Steps

if TYPE_CHECKING:
    from unipic.pipeline.manifests.ids import IdCount
    from unipic.pipeline.plan import Plan, Probe

_FILES_SHOWN = 5
_PARAMETERS = ("image_size", "num_iterations", "diffusion_steps", "guidance", "samples_per_row", "max_new_tokens")
_STATES = {
    "new": "new",
    "begun": "started; the run resumes it",
    "done": "complete; nothing left to run",
}


def plan_job(
    job: JobFile,
    overrides: Set = None,
    json: AsJson = False,
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Check the ids of all rows, not only the first two million."),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Load the model, run some rows without saving them, and estimate time and size."),
    ] = False,
) -> None:
    """Check a job and show what it would do.

    Reports every fault at once, and checks some prompts against the checkpoint. Writes nothing, starts no Ray, and
    loads the weights only with --probe.

    \b
    Examples:
      unipic plan configs/generate.yaml
      unipic plan configs/generate.yaml --set output.uri=out/test --probe
    """
    from unipic.jobs.spec.load import load_job

    resolved = load_job(job, overrides or ())

    from unipic.pipeline.plan import plan
    from unipic.pipeline.storage.remote import PATIENCE_S
    from unipic.pipeline.storage.storage import Storage

    storage = Storage(resolved.storage, patience_s=PATIENCE_S)
    with Steps() if probe else contextlib.nullcontext(lambda _: None) as on_step:
        planned = plan(resolved, storage, all_ids=ids, probe=probe, on_step=on_step)
    if json:
        typer.echo(as_json(planned))
        return
    for line in _lines(planned):
        say(line)


def _lines(plan: Plan) -> list[str]:
    left = plan.units - plan.units_done
    sampled = f" → {count(plan.rows_out, 'output row')}" if plan.rows_out != plan.rows else ""
    checkpoint = plan.checkpoint
    lines = [
        f"{plan.name} ({plan.task})",
        f"  manifest    {count(len(plan.files), 'file')}, {count(plan.rows, 'row')}{sampled}",
        *(f"              {file.name}: {count(file.rows, 'row')}" for file in plan.files[:_FILES_SHOWN]),
    ]
    if len(plan.files) > _FILES_SHOWN:
        lines.append(f"              … and {len(plan.files) - _FILES_SHOWN:,} more")
    lines += [
        f"  units       {plan.units_done:,} of {count(plan.units, 'unit')} done, {left:,} left, "
        f"at most {count(plan.rows_per_unit, 'row')} each",
        f"  reads       {', '.join(f'{role} ← {column}' for role, column in plan.bound.items())}",
        f"  columns     {', '.join(f'{name} ({kind})' for name, kind in plan.columns.items())}",
        f"  checkpoint  {checkpoint.uri}, {size(checkpoint.bytes)}, digest {checkpoint.digest[:16]}",
        f"  output      {plan.output} ({_STATES.get(plan.output_state, plan.output_state)})",
    ]
    lines += _settings(plan)
    if plan.ids is not None:
        lines += _ids(plan.ids)
    lines += [f"  row {number}       {_row(row)}" for number, row in enumerate(plan.head)]
    if plan.probe is not None:
        lines += _cost(plan.probe)
    return lines + [f"  note        {note}" for note in plan.notes]


def _settings(plan: Plan) -> list[str]:
    """How the job runs: the replicas, then the parameters of its task."""
    params, dtype = plan.settings["params"], plan.settings["dtype"]
    least, most = plan.settings["replicas"]["min"], plan.settings["replicas"]["max"]
    replicas = count(most, "replica") if least == most else f"{least:,} to {most:,} replicas"
    parts = [f"{name} {_parameter(params[name])}" for name in _PARAMETERS if params.get(name) is not None]
    lines = [f"  params      {', '.join(parts)}"] if parts else []
    if (needs := plan.needs) is None:
        return [*lines, f"  replicas    {replicas}, {dtype}"]
    batch = f"micro-batches of {count(needs.batch_size, 'row')}" if needs.batch_size else "micro-batches by GPU memory"
    memory = f"about {size(needs.replica_bytes)} each{'' if needs.batch_size else ' and more with larger batches'}"
    lines.append(f"  replicas    {replicas} on {needs.device}, {dtype}, {batch}, {memory}")
    if plan.prompts is not None and not plan.prompts.rejected:
        lines.append(f"  prompts     {count(plan.prompts.rows, 'sampled prompt')} checked, all accepted")
    return lines


def _parameter(value: Any) -> str:
    """`32`, or `20 to 5` for a value that changes over the iterations."""
    return f"{value['from']} to {value['to']}" if isinstance(value, dict) else str(value)


def _ids(ids: IdCount) -> list[str]:
    """Repeated and missing ids with their consequences; no lines if there are none."""
    least, scope = ("", "") if ids.complete else ("at least ", f" (first {ids.rows:,} rows; --ids checks all)")
    lines = []
    if ids.repeated:
        lines.append(
            f"  ids         {least}{count(ids.repeated, 'row')} with a repeated id{scope}: such rows share a seed, "
            "and replay needs FILE:ROW"
        )
    if ids.null:
        lines.append(f"  ids         {least}{count(ids.null, 'row')} without an id{scope}: file and row identify them")
    if not lines and not ids.complete:
        lines.append(f"  ids         no repeated or missing ids{scope}")
    return lines


def _row(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}: {value!r}" if isinstance(value, str) else f"{name}: {value}" for name, value in row.items()
    )


def _cost(probe: Probe) -> list[str]:
    rejected = f", {probe.rejected:,} of them rejected" if probe.rejected else ""
    return [
        f"  probe       {count(probe.rows, 'row')} in {duration(probe.unit_s)}, plus {duration(probe.load_s)} "
        f"to load the model{rejected}",
        f"  estimate    {duration(probe.total_s)} on {count(probe.replicas, 'replica')}, "
        f"{size(probe.total_bytes)} of output",
    ]
