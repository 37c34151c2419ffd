"""Promises about a folder of pictures: row numbers that stay, new pictures as new rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, part_bytes, receipts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.images.decode import ImageLimits
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.job import Input, Job
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import head, read_unit
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.preflight import preflight
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def store(manifest: Manifest, folder: Path) -> Manifest:
    """As a run does it: the new listing is stored with the output and its URI filled in."""
    assert manifest.listing is not None
    *earlier, new = manifest.files
    uri = f"{folder}/{new.name}.parquet"
    STORAGE.write(uri, manifest.listing)
    return replace(manifest, files=(*earlier, replace(new, uri=uri)))


def test_pictures_become_rows_sorted_by_path(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "a/y.webp", "notes.txt", ".hidden.png"):
        STORAGE.write(f"{tmp_path}/in/{name}", name.encode())
    manifest = discover(Input(manifest=f"{tmp_path}/in"), STORAGE)
    assert manifest.rows == 3
    assert [row["image"] for row in head(manifest, 9, STORAGE)] == ["a/y.webp", "a/z.jpg", "b.PNG"]
    again = discover(Input(manifest=f"{tmp_path}/in", format="images"), STORAGE)
    assert again.listing == manifest.listing, "the same pictures, the same bytes"
    (unit,) = units(store(manifest, tmp_path / "out"), 64)
    (first, *_) = read_unit(unit, ["id", "image", "source_bytes"], STORAGE).to_pylist()
    assert first == {"id": "a/y.webp", "image": "a/y.webp", "source_bytes": 8}
    limits = ImageLimits(max_px=1, max_bytes=100)
    got = fetch(first["image"], root=unit.file.root, storage=STORAGE, limits=limits, allow_outside_root=False)
    assert got.data == b"a/y.webp"


def test_new_pictures_are_a_new_listing_and_old_rows_stay(tmp_path: Path) -> None:
    STORAGE.write(f"{tmp_path}/in/m.png", b"1")
    source = Input(manifest=f"{tmp_path}/in")
    first = store(discover(source, STORAGE), tmp_path / "out")
    listings = [first.files[0].uri]
    same = discover(source, STORAGE, listings=listings)
    assert same.listing is None
    assert same.files[0].key == first.files[0].key
    STORAGE.write(f"{tmp_path}/in/a.png", b"2")
    STORAGE.delete(f"{tmp_path}/in/m.png")
    more = store(discover(source, STORAGE, listings=listings), tmp_path / "out")
    assert [file.rows for file in more.files] == [1, 1]
    images = [read_unit(unit, ["image"], STORAGE).column("image")[0].as_py() for unit in units(more, 64)]
    assert images == ["m.png", "a.png"]


def test_the_folder_may_be_on_s3(moto: object, tmp_path: Path) -> None:
    from unipic.pipeline.storage.options import StorageOptions

    storage = Storage(StorageOptions(endpoint_url=moto.endpoint_url))  # type: ignore[attr-defined]
    root = moto.bucket()  # type: ignore[attr-defined]
    storage.write(f"{root}/in/x/1.png", b"1")
    manifest = discover(Input(manifest=f"{root}/in"), storage)
    assert [row["id"] for row in head(manifest, 1, storage)] == ["x/1.png"]
    assert manifest.files[0].root == f"{root}/in"


def test_a_listing_that_is_none_is_refused(tmp_path: Path) -> None:
    STORAGE.write(f"{tmp_path}/in/m.png", b"1")
    STORAGE.write(f"{tmp_path}/listing-x.parquet", b"broken")
    with pytest.raises(ManifestError, match="stored listing"):
        discover(Input(manifest=f"{tmp_path}/in"), STORAGE, listings=[f"{tmp_path}/listing-x.parquet"])


def pictures(folder: Path, *names: str, colour: int = 0) -> None:
    for at, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (at * 20, colour, 0)).save(path)


def picture_job(root: Path, count: int = 10, **changes: Any) -> Job:
    """Captions of a folder of pictures `pics`, four to a unit."""
    pictures(root / "pics", *(f"{at}.png" for at in range(count)))
    changes |= {"input__manifest": str(root / "pics"), "input__columns": {"id": "id"}, "compute__rows_per_unit": 4}
    return make_job(root, "caption", **changes)


def open_again(job: Job, *, redo_changed: bool) -> None:
    context, manifest, ledger = preflight(job, STORAGE)
    claim(ledger, job, manifest, context.checkpoint_digest, redo_changed=redo_changed)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_job_over_a_folder_of_pictures_is_resumed_to_the_same_bytes(tmp_path: Path, scheme: str) -> None:
    job = picture_job(tmp_path, output__uri=f"{scheme}{tmp_path}/out")
    whole = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{scheme}{tmp_path}/whole"})})
    run_here(job)
    run_here(whole)
    first = sorted(receipts(job), key=lambda one: one.unit)[0]
    STORAGE.delete(f"{job.output.uri}/_unipic/receipts/{first.unit}.json")
    assert run_here(job) == 1
    assert run_here(job) == 0
    assert sorted(part_bytes(job).values()) == sorted(part_bytes(whole).values())
    assert verify(job.output.uri, STORAGE).ok


def test_pictures_that_come_later_are_new_rows_and_the_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    before = part_bytes(job)
    for name in ("0a.png", "z.png"):
        pictures(tmp_path / "pics", name)
        assert run_here(job) == 1
        assert run_here(job) == 0
    after = part_bytes(job)
    assert {name: after[name] for name in before} == before
    assert len(all_rows(job)) == 12
    assert verify(job.output.uri, STORAGE).ok
    assert {one.version for one in Ledger(job.output.uri, STORAGE).recorded().files} == {""}


def test_rejected_pictures_are_tried_again_and_damaged_units_done_again(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    (tmp_path / "pics" / "bad.png").write_bytes(b"no picture")
    run_here(job)
    retry_here(job)
    assert [row["id"] for row in all_rows(job, "rejected")] == ["bad.png"]
    before = part_bytes(job)
    damaged = next(name for name in before if name.startswith("/data"))
    Path(job.output.uri + damaged).write_bytes(b"damaged")
    for unit in verify(job.output.uri, STORAGE).damaged_units:
        STORAGE.delete(f"{job.output.uri}/_unipic/receipts/{unit}.json")
    assert run_here(job) == 1
    assert part_bytes(job) == before
    assert verify(job.output.uri, STORAGE).ok


def test_a_picture_replaced_under_its_name_is_refused_by_name_and_done_again_when_told_so(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    before = part_bytes(job)
    old = {row["id"]: row["caption"] for row in all_rows(job)}
    (tmp_path / "pics" / "0.png").unlink()  # a picture that is gone is none that was replaced
    pictures(tmp_path / "pics", "5.png", colour=200)
    with pytest.raises(ManifestError, match=r"^5\.png changed since this output was begun"):
        run_here(job)
    assert part_bytes(job) == before
    open_again(job, redo_changed=True)
    assert run_here(job) == 1, "only the unit of that picture"
    new = {row["id"]: row["caption"] for row in all_rows(job)}
    assert {name for name in old if old[name] != new[name]} == {"5.png"}
    assert verify(job.output.uri, STORAGE).ok
    assert run_here(job) == 0


def test_a_rejected_picture_that_was_mended_under_its_name_is_tried_again_without_more_ado(tmp_path: Path) -> None:
    job = picture_job(tmp_path, count=3)
    (tmp_path / "pics" / "bad.png").write_bytes(b"no picture")
    run_here(job)
    assert [row["id"] for row in all_rows(job, "rejected")] == ["bad.png"]
    before = all_rows(job)
    pictures(tmp_path / "pics", "bad.png")
    assert run_here(job) == 0
    retry_here(job)
    assert [row for row in all_rows(job) if row["id"] != "bad.png"] == before
    assert (len(all_rows(job)), all_rows(job, "rejected")) == (4, [])
    assert verify(job.output.uri, STORAGE).ok
    pictures(tmp_path / "pics", "bad.png", colour=9)
    with pytest.raises(ManifestError, match=r"^bad\.png changed"):
        run_here(job)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_folder_of_pictures_on_s3_is_resumed_and_a_replaced_picture_seen(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    s3 = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    pictures(tmp_path, "a.png", "b.png")
    for name in ("a.png", "b.png"):
        storage.write(f"{root}/pics/{name}", (tmp_path / name).read_bytes())
    job = make_job(
        tmp_path,
        "caption",
        input__manifest=f"{root}/pics",
        output__uri=f"{root}/pics/out",
        storage__endpoint_url=s3.endpoint_url,
    )
    assert [run_here(job), run_here(job)] == [1, 0]
    storage.write(f"{root}/pics/a.png", (tmp_path / "b.png").read_bytes())
    with pytest.raises(ManifestError, match=r"^a\.png changed"):
        run_here(job)
