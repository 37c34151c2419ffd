"""Images as files: named as the user says, inside the folder, never two of one name, and resumed where it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.jobs.cli import main
from unipic.pipeline.audit.export_images import ExportedImages, export_images
from unipic.pipeline.audit.image_names import Template, safe
from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def pictured(root: Path, ids: Sequence[str | None], **changes: object) -> Job:
    write_prompts(root / "manifest" / "a.parquet", [f"p {at}" for at in range(len(ids))], key=list(ids))
    job = make_job(root, **{"input__columns": {"id": "key", "prompt": "prompt"}, **changes})
    run_here(job)
    return job


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("images", ["inline", "files"])
def test_each_image_is_a_file_and_the_list_opens_as_a_data_set(tmp_path: Path, images: str) -> None:
    job = pictured(tmp_path, ["x", "y", None], params__samples_per_row=2, output__images=images)
    to = tmp_path / "images"
    assert export_images(job.output.uri, to, STORAGE) == ExportedImages(6, 0, 0, 0)
    names = {f"{name}-{sample}.png" for name in ("x", "y", "a-2") for sample in (0, 1)}
    assert files(to) == names | {"metadata.jsonl"}
    listed = [json.loads(line) for line in (to / "metadata.jsonl").read_text().splitlines()]
    found = {one["lineage_id"]: hashlib.sha256((to / one["file_name"]).read_bytes()).hexdigest() for one in listed}
    assert found == {row["lineage"]["lineage_id"]: row["lineage"]["output_sha256"] for row in all_rows(job)}
    table = datasets.load_dataset("imagefolder", data_dir=str(to), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(table["prompt"]) == sorted(row["prompt"] for row in all_rows(job))
    assert table[0]["image"].size == (16, 16)


def test_a_second_export_goes_on_where_the_first_ended_and_leaves_other_files_alone(tmp_path: Path) -> None:
    job = pictured(tmp_path, ["x", "y", "z"])
    to = tmp_path / "images"
    export_images(job.output.uri, to, STORAGE)
    (to / "y-0.png").unlink()
    kept = (to / "x-0.png").stat().st_mtime_ns
    assert export_images(job.output.uri, to, STORAGE).earlier == 2
    assert (to / "x-0.png").stat().st_mtime_ns == kept and (to / "y-0.png").exists()
    (to / "x-0.png").write_bytes(b"mine")
    with pytest.raises(JobError, match=r"x-0\.png exists already and holds something else\. --force replaces it"):
        export_images(job.output.uri, to, STORAGE)
    assert (to / "x-0.png").read_bytes() == b"mine"
    target = tmp_path / "target"
    (to / "x-0.png").unlink()
    (to / "x-0.png").symlink_to(target)
    export_images(job.output.uri, to, STORAGE, force=True)
    assert not target.exists() and not (to / "x-0.png").is_symlink(), "links are replaced, never followed"


def test_hostile_ids_stay_inside_the_folder_and_apart(tmp_path: Path) -> None:
    ids = ["../../up", "/abs", "a\0b", "CON", "con.x", ".hidden", "x/y", "x%2Fy", "é", "日本", "n" * 5000, "", "a b\n"]
    job = pictured(tmp_path, ids)
    before = files(tmp_path)
    to = tmp_path / "images" / "deep"
    assert export_images(job.output.uri, to, STORAGE, name="{id}/{sample}").images == len(ids)
    made = files(tmp_path) - before
    assert len(made) == len(ids) + 1 and all(name.startswith("images/deep/") for name in made)
    assert all(len(part.encode()) <= 255 for name in made for part in name.split("/"))


@pytest.mark.parametrize("ids", [("A", "a"), ("\u212b", "\u00c5"), ("x", "x"), ("ß", "SS")])
def test_names_that_some_file_system_takes_for_one_are_refused_before_anything_is_written(
    tmp_path: Path, ids: tuple[str, str]
) -> None:
    job = pictured(tmp_path, ids)
    with pytest.raises(JobError, match=r"Two images would be called .*row 1 of a\.parquet, sample 0.*Add \{file\}"):
        export_images(job.output.uri, tmp_path / "images", STORAGE)
    assert not (tmp_path / "images").exists()
    assert export_images(job.output.uri, tmp_path / "images", STORAGE, name="{row}-{id}").images == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("{id}.jpg", r"ends in \.jpg, and the images are png"),
        ("{prompt}", r"has a field \{prompt\} that no row has"),
        ("{id!r}", "has a field"),
        ("{id.__class__}", "has a field"),
        ("{id:>99999999}", "has a field"),
        ("{", "is no template"),
        ("same.png", "is the same for every row"),
        ("../{id}", "leads out of the folder"),
        ("/tmp/{id}", "leads out of the folder"),
        ("a/../../{id}", "leads out of the folder"),
    ],
)
def test_templates_that_fit_no_row_or_lead_elsewhere_are_refused(name: str, why: str) -> None:
    with pytest.raises(JobError, match=why):
        Template(name, "png")


def test_values_keep_letters_of_any_language_and_lose_what_paths_and_shells_take_for_more() -> None:
    assert [safe(text) for text in ("été_1", "a/b", "..", "nul.png", "$(x)", "%41")] == [
        "été_1",
        "a%2Fb",
        "%2E.",
        "nul.png%",
        "%24%28x%29",
        "%2541",
    ]


def test_captions_have_no_images_and_the_command_says_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = pictured(tmp_path, ["x"])
    to = tmp_path / "images"
    with pytest.raises(SystemExit, match="0"):
        main(["export", job.output.uri, "--images", str(to), "--name", "{id}-{sample}.png"])
    assert f"wrote 1 image to {to}, listed in metadata.jsonl" in capsys.readouterr().out
    for arguments, why in [
        ([], "give either --to FILE or --images DIR"),
        (["--to", "x.csv", "--name", "{id}"], "--name needs --images"),
        (["--images", "x", "--format", "csv"], "--format needs --to"),
    ]:
        with pytest.raises(SystemExit, match="1"):
            main(["export", job.output.uri, *arguments])
        assert why in capsys.readouterr().err
