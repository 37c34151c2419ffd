"""Promises about a folder of pictures: row numbers that stay, new pictures as new rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.images.decode import ImageLimits
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.job import Input
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import head, read_unit
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
