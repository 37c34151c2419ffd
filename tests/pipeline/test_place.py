"""An output's folder is its job's alone: neither the manifest's own folder nor one inside another output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.errors import OutputError
from unipic.pipeline.plan import plan
from unipic.pipeline.preflight import check_place, preflight
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


@pytest.mark.parametrize("manifest", ["w", "w/", "w/*.parquet", "w/**/*.parquet", "w/a.parquet", "link", "x/../w"])
@pytest.mark.parametrize("output", ["w", "w/", "link"])
def test_an_output_in_the_manifests_own_folder_is_refused(tmp_path: Path, manifest: str, output: str) -> None:
    write_prompts(tmp_path / "w" / "a.parquet", ["p"])
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "w")
    job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}", output__uri=f"{tmp_path}/{output}")
    for look in (plan, preflight):
        with pytest.raises(OutputError, match="is the folder that the manifest is in"):
            look(job, STORAGE)
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("below", ["data", "data/x", "deep/er/out", "_unipic/out"])
def test_an_output_inside_another_output_is_refused(tmp_path: Path, below: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    run_here(make_job(tmp_path))
    inside = make_job(tmp_path, output__uri=f"{tmp_path}/out/{below}")
    with pytest.raises(OutputError, match=r"is inside .*/out, which is another job's output"):
        preflight(inside, STORAGE)
    assert run_here(make_job(tmp_path, output__uri=f"{tmp_path}/out2")) == 1, "beside it is another matter"


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_on_s3_both_are_refused(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    s3: S3Server = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    with pytest.raises(OutputError, match="is the folder that the manifest is in"):
        check_place(f"{root}/w/", f"{root}/w", storage)
    storage.write(f"{root}/out/_unipic/run.json", b"{}")
    with pytest.raises(OutputError, match=r"run\.json is damaged|is inside"):
        check_place(f"{root}/out/a/b", f"{root}/w", storage)
    check_place(f"{root}/out2/a/b", f"{root}/w", storage)
