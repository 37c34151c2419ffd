"""The main job, whole: real prompts on a real S3 server become pictures, captions and edits, no row unaccounted for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.e2e.command_line import FAST, SIZE, unipic, write_job
from tests.fakes import stated
from tests.places import SHARED
from tests.servers import S3Server
from unipic.pipeline.lineage import recompute_id
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

pytestmark = pytest.mark.slow

GENEVAL = SHARED / "benchmarks" / "geneval" / "evaluation_metadata.jsonl"


@pytest.fixture(scope="module")
def geneval_on_s3(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, rclone: S3Server
) -> Iterator[tuple[Storage, str]]:
    """GenEval's prompts as Parquet on S3, generated, captioned and edited by three job files: (storage, bucket)."""
    if not GENEVAL.exists():
        pytest.skip("GenEval's prompts are not beside this checkout")
    root = tmp_path_factory.mktemp("jobs")
    storage = Storage(StorageOptions(endpoint_url=rclone.endpoint_url))
    prompts = [json.loads(line)["prompt"] for line in GENEVAL.read_text().splitlines()]
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": [f"g{n:04d}" for n in range(len(prompts))], "text": prompts}), sink)
    bucket = rclone.bucket()
    storage.write(f"{bucket}/geneval/prompts.parquet", sink.getvalue())
    shared = {"checkpoint": checkpoint, "storage": {"endpoint_url": rclone.endpoint_url}}
    generate = write_job(
        root,
        "generate",
        manifest=f"{bucket}/geneval/*.parquet",
        output=f"{bucket}/pictures",
        input={"columns": {"id": "key", "prompt": "text"}},
        params={**FAST, "guidance": 2.0, "seed": 7},
        **shared,
    )
    made = {"manifest": f"{bucket}/pictures/data/*.parquet", **shared}
    caption = write_job(
        root,
        "caption",
        output=f"{bucket}/captions",
        input={"columns": {"id": "id", "image": "image"}},
        params={**SIZE, "max_new_tokens": 12},
        **made,
    )
    edit = write_job(
        root,
        "edit",
        output=f"{bucket}/edits",
        input={"columns": {"id": "id", "image": "image"}},
        params={**FAST, "num_iterations": 2, "guidance": 1.0, "instruction": "Make it night."},
        **made,
    )
    for job in (generate, caption, edit):
        unipic("run", job)
    yield storage, bucket


def rows_of(storage: Storage, folder: str) -> list[dict[str, Any]]:
    parts = [one.uri for one in storage.list(folder, suffix=".parquet")]
    return [stated(row) for uri in parts for row in pq.read_table(io.BytesIO(storage.read(uri))).to_pylist()]


def test_every_geneval_prompt_is_in_exactly_one_row_of_each_output(geneval_on_s3: tuple[Storage, str]) -> None:
    storage, bucket = geneval_on_s3
    for output in ("pictures", "captions", "edits"):
        rows = rows_of(storage, f"{bucket}/{output}/data")
        assert sorted(row["id"] for row in rows) == [f"g{n:04d}" for n in range(553)]
        assert all(recompute_id(row["lineage"]) == row["lineage"]["lineage_id"] for row in rows)
        assert rows_of(storage, f"{bucket}/{output}/rejected") == []


def test_lineage_of_an_edit_leads_back_to_its_prompt(geneval_on_s3: tuple[Storage, str]) -> None:
    storage, bucket = geneval_on_s3
    pictures = {row["lineage"]["lineage_id"]: row for row in rows_of(storage, f"{bucket}/pictures/data")}
    prompts = [json.loads(line)["prompt"] for line in GENEVAL.read_text().splitlines()]
    for edit in rows_of(storage, f"{bucket}/edits/data"):
        parent = pictures[edit["lineage"]["parent_lineage_id"]]
        assert parent["id"] == edit["id"]
        assert parent["prompt"] == prompts[int(edit["id"][1:])]
        assert edit["lineage"]["input_sha256"] == parent["lineage"]["output_sha256"]


def test_pictures_open_as_images_and_a_repeated_run_does_nothing(
    geneval_on_s3: tuple[Storage, str], tmp_path: Path
) -> None:
    import datasets

    storage, bucket = geneval_on_s3
    for output in ("pictures", "edits", "captions"):
        for one in storage.list(f"{bucket}/{output}/data", suffix=".parquet"):
            (tmp_path / f"{output}-{one.uri.rsplit('/', 1)[1]}").write_bytes(storage.read(one.uri))
        files = str(tmp_path / f"{output}-*.parquet")
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == 553
        if output != "captions":
            assert isinstance(loaded.features["image"], datasets.Image) and loaded[5]["image"].size == (64, 64)
        else:
            assert all(isinstance(text, str) for text in loaded["caption"])


def photographs() -> dict[str, np.ndarray]:
    """The photographs that scikit-image's own package carries."""
    import skimage.data

    names = ("astronaut", "coffee", "chelsea", "camera", "rocket", "moon", "coins", "page", "text", "colorwheel")
    found = {}
    for name in names:
        try:
            found[name] = getattr(skimage.data, name)()
        except Exception:  # not in the wheel: it would have to be fetched
            continue
    return found


@pytest.fixture(scope="module")
def photo_manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The photographs as a folder, and as Parquet with bytes."""
    root = tmp_path_factory.mktemp("photos")
    folder = root / "folder"
    folder.mkdir()
    photos = photographs()
    assert len(photos) >= 5
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    files = sorted(folder.iterdir())
    structs = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(structs, kind), "key": [path.stem for path in files]})
    pq.write_table(table, root / "photos.parquet")
    return {"folder": str(folder), "parquet": str(root / "photos.parquet")}


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("folder", "caption"),
        ("parquet", "edit"),
        ("folder", "edit"),
        ("parquet", "caption"),
    ],
)
def test_real_photographs_are_captioned_and_edited(
    photo_manifests: dict[str, str], checkpoint: Path, tmp_path: Path, kind: str, task: str
) -> None:
    params = {**SIZE, "max_new_tokens": 8} if task == "caption" else {**FAST, "instruction": "Make it night."}
    job = write_job(
        tmp_path,
        task,
        checkpoint=checkpoint,
        manifest=photo_manifests[kind],
        output=str(tmp_path / "out"),
        params=params,
        input={"columns": {"id": "key"} if kind == "parquet" else {}},
    )
    unipic("run", job)
    rows = rows_of(Storage(StorageOptions()), str(tmp_path / "out" / "data"))
    assert len(rows) == len(photographs())
    assert {Path(row["source"]).suffix for row in rows} == {".png"}
