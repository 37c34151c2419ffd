"""Where a job file may point, and what it has to say in so many words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.jobs.spec.load import load_job
from unipic.pipeline.errors import SpecError

JOB = """\
name: pictures
task: edit
input:
  manifest: {manifest}
  image_root: {image_root}
model: {{checkpoint: {checkpoint}}}
output: {{uri: {uri}}}
"""
FINE = {"manifest": "prompts.parquet", "image_root": "pictures", "checkpoint": "tiny", "uri": "out"}
PLACES = {"manifest": "input.manifest", "image_root": "input.image_root", "checkpoint": "model.checkpoint"}


@pytest.mark.parametrize("field", FINE)
@pytest.mark.parametrize(
    "address", ["http://host/x", "HTTPS://host/x", "ftp://host/x", "ftp:x", "file:x", "file://host/x", "hdfs://b/x"]
)
def test_addresses_that_are_neither_local_nor_s3_are_refused_with_their_place(
    tmp_path: Path, field: str, address: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(**{**FINE, field: address}))
    place = PLACES.get(field, "output.uri").replace(".", r"\.")
    with pytest.raises(SpecError, match=rf"job\.yaml:\d {place}: must be a local path or an s3:// address, got"):
        load_job(path)


@pytest.mark.parametrize("address", ["gs://b/x", "az://c/x", "hf://datasets/o/n/x"])
def test_stores_that_are_only_read_from_hold_manifests_and_images_and_nothing_else(
    tmp_path: Path, address: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(**{**FINE, "manifest": address, "image_root": address}))
    assert load_job(path).input.manifest == address
    for field in ("checkpoint", "uri"):
        path.write_text(JOB.format(**{**FINE, field: address}))
        with pytest.raises(SpecError, match=r"must be a local path or an s3:// address, got one that begins with"):
            load_job(path)


@pytest.mark.parametrize("address", ["s3://bucket/x", "file:///srv/x", "/srv/x", "a:b/x", "C:x", "./http:/x"])
def test_paths_and_s3_addresses_are_fine(tmp_path: Path, address: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(**dict.fromkeys(FINE, f'"{address}"')))
    assert load_job(path).output.uri == address


def test_the_folder_of_pictures_may_be_a_file_address(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "x.png")
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p", "p"], image=["x.png", "../manifest/a.parquet"])
    columns = {"prompt": "prompt", "image": "image"}
    job = make_job(tmp_path, "edit", input__columns=columns, input__image_root=f"file://{tmp_path}/elsewhere")
    run_here(job)
    assert len(all_rows(job)) == 1
    assert all_rows(job, "rejected")[0]["rejection"]["kind"] == "ForbiddenSource"


def test_the_web_has_to_be_allowed_in_so_many_words(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(**FINE))
    assert load_job(path).input.allow_http is False
    assert load_job(path, ["input.allow_http=true", "input.http_deadline_s=5"]).input.http_deadline_s == 5.0
    with pytest.raises(SpecError, match=r"input\.allow_http: must be true or false"):
        load_job(path, ["input.allow_http=1"])
    with pytest.raises(SpecError, match=r"input\.http_deadline_s: must be more than 0"):
        load_job(path, ["input.http_deadline_s=0"])


@pytest.mark.parametrize("letters", ["x", "a.b", "a://", "0:", "!", "1_", "é"])
@pytest.mark.parametrize("as_key", [False, True])
def test_a_value_or_key_of_a_hundred_thousand_letters_is_refused_in_time_in_proportion_to_it(
    tmp_path: Path, letters: str, as_key: bool
) -> None:
    path = tmp_path / "job.yaml"
    long = f'"{letters * (100_000 // len(letters))}"'
    path.write_text(
        JOB.format(**FINE) + ("params:\n  ? " + long + "\n  : 1\n" if as_key else f"params: {{seed: {long}}}\n")
    )
    began_s = time.monotonic()
    with pytest.raises(SpecError, match=r"job\.yaml:\d"):
        load_job(path)
    assert time.monotonic() - began_s < 20, "it took minutes when it was quadratic"
