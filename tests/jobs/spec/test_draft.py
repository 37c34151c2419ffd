"""`unipic init`: the job it writes fits the manifest, the checkpoint and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from unipic.jobs.spec.draft import Wishes, draft, schema_path
from unipic.jobs.spec.load import load_job
from unipic.pipeline.errors import CheckpointError, ManifestError
from unipic.pipeline.job import Job
from unipic.pipeline.machine import Machine
from unipic.pipeline.plan import plan
from unipic.pipeline.records import PICTURE
from unipic.pipeline.storage.storage import Storage

CPU, GPUS = Machine(cpus=2, gpus=0), Machine(cpus=16, gpus=4)


def manifest(folder: Path, rows: int = 2, **columns: pa.DataType) -> str:
    path = folder / "my prompts.parquet"
    values = {name: pa.nulls(rows, kind) for name, kind in columns.items()}
    pq.write_table(pa.table(values), path)
    return str(path)


def drafted(folder: Path, machine: Machine = CPU, **wishes: Any) -> Job:
    """The drafted job, read as `unipic run` reads it."""
    path = folder / "job.yaml"
    path.write_text(draft(Wishes(**wishes), machine))
    return load_job(path)


@pytest.mark.parametrize(
    ("columns", "task", "expected"),
    [
        ({"key": pa.string(), "prompt": pa.string()}, "generate", {"id": "key", "prompt": "prompt"}),
        ({"ID": pa.int64(), "Text": pa.large_string()}, "generate", {"id": "ID", "prompt": "Text"}),
        ({"prompt_id": pa.string(), "prompt": pa.string()}, "generate", {"id": "prompt_id", "prompt": "prompt"}),
        ({"user_id": pa.string(), "prompt": pa.string()}, "generate", {"prompt": "prompt"}),
        ({"words": pa.string(), "score": pa.float64()}, "generate", {"prompt": "words"}),
        ({"id": pa.string(), "image": PICTURE, "caption": pa.string()}, "caption", {"id": "id", "image": "image"}),
        ({"photograph": PICTURE, "size": pa.int64()}, "caption", {"image": "photograph"}),
        ({"url": pa.string(), "instruction": pa.string()}, "edit", {"image": "url", "prompt": "instruction"}),
        ({"prompt": pa.int64(), "text": pa.string()}, "generate", {"prompt": "text"}),
    ],
)
def test_task_and_columns_follow_from_names_and_types(
    tmp_path: Path, columns: dict[str, pa.DataType], task: str, expected: dict[str, str]
) -> None:
    job = drafted(tmp_path, manifest=manifest(tmp_path, **columns))
    assert (job.task, job.input.columns.model_dump(exclude_none=True)) == (task, expected)


def test_a_drafted_job_passes_plan_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("key,prompt\na,a photo of a red circle\nb,a photo of two blue stars\n")
    monkeypatch.chdir(tmp_path)
    job = drafted(tmp_path, manifest="prompts.csv")
    assert job.name == "prompts-generate" and job.output.uri == "out/prompts-generate"
    assert plan(job, Storage()).rows == 2


def test_sizes_come_from_the_checkpoint_and_devices_from_the_machine(tmp_path: Path) -> None:
    source = manifest(tmp_path, rows=1000, prompt=pa.string())
    cpu, gpu = drafted(tmp_path, manifest=source), drafted(tmp_path, GPUS, manifest=source)
    assert (cpu.image_size, cpu.params.num_iterations) == (64, 16)  # type: ignore[union-attr]
    assert (cpu.compute.replicas.max, cpu.model.dtype) == (2, "float32")
    assert (gpu.compute.replicas.max, gpu.model.dtype, gpu.compute.gpus_per_replica) == (4, "bfloat16", "auto")
    few = drafted(tmp_path, GPUS, manifest=manifest(tmp_path, rows=3, prompt=pa.string()))
    assert few.compute.replicas.max == 1  # no replica without work


def test_a_folder_of_images_is_captioned_or_edited_by_one_instruction(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    folder = str(tmp_path / "photos")
    assert drafted(tmp_path, manifest=folder).task == "caption"
    job = drafted(tmp_path, manifest=folder, task="edit", instruction="make it: winter")
    assert job.params.instruction == "make it: winter"  # type: ignore[union-attr]
    with pytest.raises(ManifestError, match="has no column that edit jobs can use as prompt") as caught:
        draft(Wishes(folder, task="edit"), CPU)
    assert "--prompt COLUMN or give one --instruction" in caught.value.remedy


def test_images_on_the_web_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "photos.csv"
    path.write_text("url\nhttps://example.org/a.png\n")
    assert drafted(tmp_path, manifest=str(path)).input.allow_http


def test_chosen_columns_win_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    source = manifest(tmp_path, prompt=pa.string(), other=pa.string())
    assert drafted(tmp_path, manifest=source, columns={"prompt": "other"}).input.columns.prompt == "other"
    with pytest.raises(ManifestError, match="has no column 'nothing'; it has prompt"):
        draft(Wishes(source, columns={"prompt": "nothing"}), CPU)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        draft(Wishes(manifest(tmp_path, prompt=pa.string()), checkpoint=str(tmp_path)), CPU)


def test_the_schema_line_names_the_schema_of_this_installation(tmp_path: Path) -> None:
    text = draft(Wishes(manifest(tmp_path, prompt=pa.string())), CPU)
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={schema_path()}"
    assert schema_path().is_file()
    assert yaml.safe_load(text)["model"]["checkpoint"] == "builtin:tiny"
