"""The job file: YAML and `--set` overrides → one frozen job, or a list of all faults with their places."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from unipic.jobs.spec import sentences, yaml_file
from unipic.jobs.spec.yaml_file import Fault
from unipic.pipeline.errors import SpecError
from unipic.pipeline.job import TASKS, AnyJob, CaptionJob, EditJob, GenerateJob, Job

JOBS: dict[str, type[Job]] = {"generate": GenerateJob, "edit": EditJob, "caption": CaptionJob}
_EMPTY = "is empty; `unipic init MANIFEST > job.yaml` writes a job"
_MANIFESTS = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".txt")  # .json may be a job: JSON is YAML


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Reads and checks the job at `path`, without network or GPU.

    >>> job = unipic.load_job("my-job.yaml", ["params.seed=7"])
    >>> job.task, job.params.seed
    ('generate', 7)

    Args:
        path: the YAML file. Relative local paths inside it start from the current directory.
        overrides: `key.key=value`, each value in YAML; later ones win.

    Raises:
        SpecError: its message lists every fault, one a line, as `configs/edit.yaml:12 compute.batch_size: must be …`.
    """
    draft = _Draft(str(path), yaml_file.parse(_text(Path(path))))
    for override in overrides:
        draft.override(override)
    return draft.finish()


def json_schema() -> dict[str, Any]:
    """JSON schema of the job file, for editors and for programs that write jobs."""
    schema = TypeAdapter(AnyJob).json_schema()
    for name in (kind.__name__ for kind in JOBS.values()):  # in a file the task says which job it is
        job = schema["$defs"][name]
        del job["properties"]["task"]["default"]
        job["required"].insert(1, "task")
    number = {"type": "integer", "minimum": 1, "maximum": 10_000}
    replicas = schema["$defs"]["Compute"]["properties"]["replicas"]
    replicas["anyOf"] = [number, {"$ref": replicas.pop("$ref")}]  # `replicas: 4` is short for {min: 4, max: 4}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "UniPic job",
        "description": "One task over one manifest into one output folder; see `unipic run --help`.",
        **schema,
    }


def _text(path: Path) -> str:
    remedy = "Give the path of a job file."
    if path.is_dir():
        raise SpecError(f"{path} is a folder, not a job file", remedy=remedy)
    if path.suffix.lower() in _MANIFESTS and path.exists():
        write = f"`unipic init {shlex.quote(str(path))} > job.yaml` writes a job for it."
        raise SpecError(f"{path} looks like a manifest, not a job file", remedy=write)
    try:
        with path.open("rb") as stream:
            data = stream.read(yaml_file.FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"the job file {path} does not exist", remedy=remedy) from None
    except OSError as error:
        raise SpecError(f"cannot read the job file {path}: {error.strerror}") from error
    if len(data) > yaml_file.FILE_MAX_BYTES:
        raise SpecError(f"{path} is larger than 1 MiB, the limit for job files", remedy=remedy)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})", remedy=remedy) from None


class _Draft:
    """A job during loading: values, places and faults so far."""

    def __init__(self, file: str, document: yaml_file.Document) -> None:
        self.file = file
        self.values: Any = document.value
        self.plain = document.plain
        self.labels = {place: (line, f"{file}:{line}") for place, line in document.lines.items()}
        self.faults: list[Fault] = []
        for place, line, message in document.faults:
            self._add(place, message, line=line)
        if not isinstance(self.values, dict):
            if not self.faults:
                self._add((), _EMPTY if self.values is None else "must be a map of keys, such as `name: my-job`")
            self._stop()

    def override(self, text: str) -> None:
        """Applies one `key.key=value`."""
        dotted, equals, value_text = text.partition("=")
        place = tuple(part.strip() for part in dotted.split("."))
        if not equals or not all(place):
            shown = text if not sentences.is_secret(text) else "…"
            self.faults.append(
                Fault((), 0, f"--set {shown}", "must have the form key=value, such as compute.batch_size=8")
            )
            return
        label = f"--set {'.'.join(place)}"
        document = yaml_file.parse(value_text)
        section = self.values
        for depth, key in enumerate(place[:-1], start=1):
            inner = section.get(key)
            if inner is not None and not isinstance(inner, dict):
                whole = ".".join(place[:depth])
                self.faults.append(
                    Fault(
                        place,
                        0,
                        label,
                        f"{whole} has the value {sentences.shown(inner)}, not keys; set {whole} as a whole",
                    )
                )
                return
            if inner is None:
                inner = section[key] = {}
                self.labels.setdefault(place[:depth], (0, label))
            section = inner
        section[place[-1]] = document.value
        self._forget(place)
        self.labels[place] = (0, label)
        self.labels |= {(*place, *inner): (0, label) for inner in document.lines}
        self.plain |= {(*place, *inner): plain for inner, plain in document.plain.items()}
        for inner, _, message in document.faults:
            self._add((*place, *inner), message)

    def finish(self) -> Job:
        """The job.

        Raises:
            SpecError: every fault, in the order of the file.
        """
        for place in sentences.secrets(self.values):
            self._add(place, sentences.NO_SECRETS)
        job, errors = self._validated()
        known = {fault.path for fault in self.faults}
        for place, message in sentences.faults(
            errors, values=self.values, plain=self.plain, job_type=type_of(self.values)
        ):
            if not any(place[: len(earlier)] == earlier for earlier in known if earlier):
                self._add(place, message)
        if self.faults or job is None:
            self._stop()
        return job

    def _validated(self) -> tuple[Job | None, list[Any]]:
        values = self.values
        errors: list[Any] = []
        if type_of(values) is None:
            kind = "missing" if "task" not in values else "literal_error"
            errors.append(
                {"type": kind, "loc": ("task",), "input": values.get("task"), "ctx": {"expected": _or(TASKS)}}
            )
            values = {key: value for key, value in values.items() if key != "params"} | {"task": "generate"}
        try:
            job = JOBS[values["task"]].model_validate(values)
        except ValidationError as error:
            return None, errors + list(error.errors(include_url=False))
        return (None if errors else job), errors

    def _forget(self, place: yaml_file.Path) -> None:
        """Drops the file's content and faults at `place`, which an override replaces."""
        size = len(place)
        self.labels = {path: label for path, label in self.labels.items() if path[:size] != place}
        self.plain = {path: text for path, text in self.plain.items() if path[:size] != place}
        self.faults = [fault for fault in self.faults if fault.path[:size] != place]

    def _add(self, place: yaml_file.Path, message: str, *, line: int | None = None) -> None:
        known = place
        while known and known not in self.labels:
            known = known[:-1]
        line_number, label = self.labels.get(known, (1, f"{self.file}:1"))
        if line is not None:
            line_number, label = line, f"{self.file}:{line}"
        shown = f"{label} {'.'.join(place)}".rstrip() if line_number else label
        if not line_number and place and not label.endswith(" " + ".".join(place)):
            shown = f"{label} ({'.'.join(place)})"
        self.faults.append(Fault(place, line_number, shown, message))

    def _stop(self) -> NoReturn:
        ordered = sorted(self.faults, key=lambda fault: (fault.line == 0, fault.line))
        raise SpecError("\n".join(str(fault) for fault in ordered))


def type_of(values: dict[str, Any]) -> type[Job] | None:
    """The job type that `values` name, or None if the task is missing or unknown."""
    task = values.get("task")
    return JOBS.get(task) if isinstance(task, str) else None


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(repr(name) for name in names[:-1])} or {names[-1]!r}"
