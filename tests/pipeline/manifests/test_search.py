"""Which files a manifest's address stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


@pytest.mark.parametrize("manifest", ["w", "w/", "w/**/*.parquet", "link"])
def test_an_output_inside_the_manifests_folder_is_none_of_its_rows(tmp_path: Path, manifest: str) -> None:
    write_prompts(tmp_path / "w" / "a.parquet", ["x", "y"])
    (tmp_path / "link").symlink_to(tmp_path / "w")
    job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}", output__uri=f"{tmp_path}/w/out")
    assert [run_here(job), run_here(job), len(all_rows(job))] == [1, 0, 2]
    assert plan(job, STORAGE).rows == 2
    other = make_job(tmp_path, input__manifest=f"{tmp_path}/w/out/data", output__uri=f"{tmp_path}/w/out2")
    assert run_here(other) == 1, "another job's data folder is a manifest"


def test_a_manifest_that_is_nothing_but_the_jobs_own_output_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path / "out" / "data" / "a.parquet", ["x"])
    for manifest in ("out/data", "out/data/a.parquet", "out/*/*.parquet"):
        job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}")
        with pytest.raises(ManifestError, match=r"No file matches .* but those in .*out, which is this job's own"):
            run_here(job)


@pytest.mark.parametrize("manifest", ["out/in", "out/in/*.parquet", "out/in/**/*.parquet", "out/in/prompts.parquet"])
def test_a_manifest_may_lie_in_a_folder_inside_the_output(tmp_path: Path, manifest: str) -> None:
    write_prompts(tmp_path / "out" / "in" / "prompts.parquet", ["x", ""])
    job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}")
    assert [run_here(job), run_here(job), len(all_rows(job))] == [1, 0, 1]


def test_an_output_beside_the_manifest_whose_name_begins_alike_is_no_part_of_it(tmp_path: Path) -> None:
    write_prompts(tmp_path / "out-of-town" / "a.parquet", ["x"])
    assert run_here(make_job(tmp_path, input__manifest=f"{tmp_path}/out-of-town")) == 1


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_on_s3_too_outputs_are_left_out_and_odd_names_are_literal(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    s3 = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    path = write_prompts(tmp_path / "a.parquet", ["x", "y"])
    for name in ("w [1]/a.parquet", "w [1]/out/data/part.parquet"):
        storage.write(f"{root}/{name}", path.read_bytes())
    for manifest in ("w [1]", "w [1]/**/*.parquet", "w [1]/a.parquet"):
        found = discover(Input(manifest=f"{root}/{manifest}"), storage, outside=f"{root}/w [1]/out/")
        assert [file.name for file in found.files] == ["a.parquet"]
    with pytest.raises(ManifestError, match="which is this job's own output"):
        discover(Input(manifest=f"{root}/w [1]/out"), storage, outside=f"{root}/w [1]/out")


def test_a_folder_or_file_with_brackets_in_its_name_is_a_manifest(tmp_path: Path) -> None:
    write_prompts(tmp_path / "man [v2]" / "a[1].parquet", ["x"])
    write_prompts(tmp_path / "man [v2]" / "more?" / "b.parquet", ["y"])
    names = {
        "man [v2]": ["a[1].parquet", "more?/b.parquet"],
        "man [v2]/": ["a[1].parquet", "more?/b.parquet"],
        "man [v2]/a[1].parquet": ["a[1].parquet"],
        "man [v2]/*.parquet": ["a[1].parquet"],
        "man [v2]/more?/[ab].parquet": ["b.parquet"],
        "man*/*/b.parquet": ["man [v2]/more?/b.parquet"],
    }
    for manifest, expected in names.items():
        found = discover(Input(manifest=f"{tmp_path}/{manifest}"), STORAGE)
        assert [file.name for file in found.files] == expected, manifest
    with pytest.raises(ManifestError, match="No file matches"):
        discover(Input(manifest=f"{tmp_path}/man [v3]"), STORAGE)


def test_a_misspelt_manifest_is_answered_with_its_neighbour(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.parquet", ["x"])
    for name, remedy in {"prompt.parquet": 'Did you mean "prompts.parquet"?', "zzz": "", "no/where": ""}.items():
        with pytest.raises(ManifestError, match="There is no manifest at") as caught:
            discover(Input(manifest=f"{tmp_path}/{name}"), STORAGE)
        assert caught.value.remedy == remedy


@pytest.mark.parametrize("suffix", [b".parquet", b".png"])
def test_a_file_whose_name_is_not_utf8_is_refused_by_name(tmp_path: Path, suffix: bytes) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"])
    Path(os.fsdecode(os.fsencode(tmp_path / "manifest") + b"/caf\xe9" + suffix)).write_bytes(b"")
    with pytest.raises(ManifestError, match=r"The name of the file caf\\xe9\.(parquet|png) in .* is not UTF-8"):
        plan(make_job(tmp_path), STORAGE)
