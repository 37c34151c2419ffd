"""No file of a manifest's folder is left out without a word: what gives no rows is counted and named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.job import Input
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
FORMATS = {"avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM", "tga": "TGA", "pcx": "PCX", "sgi": "SGI", "jfif": "JPEG"}


def image(path: Path, image_format: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 30, 30)).save(data, image_format)
    path.write_bytes(data.getvalue())
    return path


def test_a_folder_of_images_takes_every_format_that_can_be_decoded(tmp_path: Path) -> None:
    for suffix, image_format in FORMATS.items():
        image(tmp_path / "manifest" / f"a.{suffix}", image_format)
        image(tmp_path / "manifest" / f"b.{suffix.upper()}", image_format)
    job = make_job(tmp_path, "caption", input__columns={"id": "id"})
    run_here(job)
    assert all_rows(job, "rejected") == []
    assert len(all_rows(job)) == 2 * len(FORMATS)
    assert plan(job, STORAGE).notes == []


def test_what_a_folder_of_images_leaves_out_is_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "manifest"
    for name in ("a.png", "sub/b.png", "_cover.png", ".thumbs/c.png"):
        image(folder / name)
    for name in ("d.heic", "e.HEIC", "notes.txt", "README", "logo.svg"):
        (folder / name).write_bytes(b"x")
    job = make_job(tmp_path, "caption", input__columns={"id": "id"})
    notes = plan(job, STORAGE).notes
    run_here(job)
    assert list(Ledger(job.output.uri, STORAGE).recorded().epoch.left_out) == notes, "the output says it, too"
    assert notes == [
        "left out as no images by name: 5 files (1 without a suffix, 2 .heic, 1 .svg, 1 .txt): "
        "README, d.heic, e.HEIC …",
        'left out: 2 files with a name that begins with "." or "_": .thumbs/c.png, _cover.png',
    ]


def test_a_metadata_csv_that_takes_the_place_of_a_folder_of_images_is_said_with_the_remedy(tmp_path: Path) -> None:
    for at in range(5):
        image(tmp_path / "manifest" / f"{at}.png")
    (tmp_path / "manifest" / "metadata.csv").write_text("file_name,text\n0.png,a\n1.png,b\n")
    (tmp_path / "manifest" / "README.md").write_text("x")
    job = make_job(tmp_path, "caption", input__columns={"image": "file_name"})
    found = plan(job, STORAGE)
    assert found.rows == 2
    assert found.notes == [
        "5 images beside the manifest files (0.png, 1.png, 2.png …) are read only where a row names them; "
        "input.format: images reads all images of the folder instead",
        "left out as no manifests by name: 1 file: README.md",
    ]
    every = make_job(tmp_path, "caption", input__format="images", output__uri=str(tmp_path / "every"))
    assert plan(every, STORAGE).rows == 5


@pytest.mark.parametrize("manifest", ["manifest/a.parquet", "manifest/*.parquet"])
def test_whoever_names_the_files_is_told_of_no_others(tmp_path: Path, manifest: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    image(tmp_path / "manifest" / "a.png")
    assert discover(Input(manifest=f"{tmp_path}/{manifest}"), STORAGE).left_out == ()
