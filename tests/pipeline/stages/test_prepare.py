"""Whatever a row brings, it is that row's matter: kept, rejected alone, never followed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import all_rows, first_unit, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from tests.tables import BROKEN, REPLACED, grey_png, rejections, texts, write_csv, write_table
from unipic.pipeline.images.encode import SOFTWARE, facts_of
from unipic.pipeline.lineage import derive_seed
from unipic.pipeline.stages.prepare import prepare

SECRET = "X-Amz-Signature=canary"


@pytest.mark.parametrize("bad", ["id", "prompt", "seed"])
def test_text_that_is_not_utf8_rejects_its_row_and_its_neighbours_are_delivered(tmp_path: Path, bad: str) -> None:
    columns: dict[str, Any] = {"id": texts("a", "b", "c"), "prompt": texts("p", "q", "r"), "seed": texts("1", "2", "3")}
    cells = columns[bad].cast(pa.binary()).to_pylist()
    columns[bad] = texts(cells[0], BROKEN, cells[2])
    write_table(tmp_path, **columns)
    job = make_job(tmp_path, input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    assert [row["id"] for row in all_rows(job)] == ["a", "c"]
    (row,) = all_rows(job, "rejected")
    assert row["rejection"]["kind"] == "WrongType" and row["rejection"]["source_row"] == 1
    assert row["rejection"]["message"].startswith(f'The column "{bad}" holds text that is not UTF-8')
    assert row[bad] == REPLACED


def test_a_pictures_path_that_is_not_utf8_rejects_its_row(tmp_path: Path) -> None:
    pictures = pa.StructArray.from_arrays(
        [pa.array([None, grey_png()]), texts(BROKEN, "x.png")], names=["bytes", "path"]
    )
    write_table(tmp_path, image=pictures)
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert [row["source"] for row in all_rows(job)] == ["x.png"]
    assert [kind for kind, _ in rejections(job)] == ["WrongType"]


def test_values_that_python_cannot_hold_are_the_rows_where_read_and_nobodys_where_kept(tmp_path: Path) -> None:
    moments = pa.array([2**55, 1], pa.timestamp("ms"))
    write_table(tmp_path / "read", id=["1", "2"], prompt=moments)
    job = make_job(tmp_path / "read")
    run_here(job)
    (part,) = (tmp_path / "read" / "out" / "rejected").iterdir()
    rejected = pq.read_table(part, columns=["rejection"]).column("rejection").to_pylist()
    assert [one["kind"] for one in rejected] == ["WrongType"] * 2 and "timestamp[ms]" in rejected[0]["message"]
    write_table(tmp_path / "kept", id=["1", "2"], prompt=["p", "q"], when=moments)
    job = make_job(tmp_path / "kept", input__keep=["when"])
    run_here(job)
    (part,) = (tmp_path / "kept" / "out" / "data").iterdir()
    assert pq.read_table(part).column("when").cast(pa.int64()).to_pylist() == [2**55, 1]


def test_empty_cells_of_csv_are_no_id_no_seed_and_no_question(tmp_path: Path) -> None:
    write_csv(tmp_path / "seeds", "id,prompt,seed\na,x,7\n,y,\n,z, \n")
    job = make_job(tmp_path / "seeds", input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    rows = all_rows(job)
    assert [row["id"] for row in rows] == ["a", None, None] and rejections(job) == []
    seeds = [row["lineage"]["seed"] for row in rows]
    assert seeds[0] == 7 and len(set(seeds)) == 3
    write_csv(tmp_path / "ask", "image,question\nx.png,What colour?\nx.png,\n")
    (tmp_path / "ask" / "manifest" / "x.png").write_bytes(grey_png())
    manifest_csv = str(tmp_path / "ask" / "manifest" / "a.csv")
    columns = {"image": "image", "prompt": "question"}
    job = make_job(tmp_path / "ask", "caption", input={"manifest": manifest_csv, "columns": columns})
    run_here(job)
    asked = [row["question"] for row in all_rows(job)]
    assert asked[0] == "What colour?" and len(asked) == 2 and asked[1] == job.params.question


def test_an_empty_prompt_of_csv_and_an_empty_id_of_parquet_are_what_they_were(tmp_path: Path) -> None:
    write_csv(tmp_path / "csv", "id,prompt\na,\n")
    job = make_job(tmp_path / "csv")
    run_here(job)
    assert rejections(job) == [("EmptyPrompt", "the prompt is empty")]
    write_table(tmp_path / "parquet", id=[""], prompt=["p"])
    job = make_job(tmp_path / "parquet")
    run_here(job)
    (row,) = all_rows(job)
    assert row["id"] == "" and row["lineage"]["seed"] == derive_seed(job.params.seed, "id:", 0)


@pytest.mark.parametrize("seed", ["9" * 5000, "x" * 5000])
def test_a_seed_of_thousands_of_characters_rejects_its_row_in_a_short_sentence(tmp_path: Path, seed: str) -> None:
    write_table(tmp_path, id=["a", "b"], prompt=["p", "q"], seed=[seed, "5"])
    job = make_job(tmp_path, input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    assert [row["lineage"]["seed"] for row in all_rows(job)] == [5]
    ((kind, message),) = rejections(job)
    assert kind == "WrongType" and len(message) < 300


@pytest.mark.parametrize(
    "lineage",
    [
        pa.array([{"lineage_id": 7}]),
        pa.array([{"other": "x"}]),
        pa.array(["text"]),
        pa.array([None], pa.struct([("lineage_id", pa.string())])),
        pa.StructArray.from_arrays([texts("a"), texts("b")], names=["lineage_id", "lineage_id"]),
    ],
)
def test_a_foreign_lineage_column_names_no_parent(tmp_path: Path, lineage: pa.Array) -> None:
    write_table(tmp_path, image=[grey_png()], lineage=lineage)
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert [row["lineage"]["parent_lineage_id"] for row in all_rows(job)] == [None]


def test_a_picture_with_forged_facts_is_captioned_like_any_other(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0131] = SOFTWARE
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b'{"lineage_id": "\\ud800"}'
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    assert facts_of(buffer.getvalue()) == {"lineage_id": "?"}
    write_table(tmp_path, image=[buffer.getvalue()])
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert len(all_rows(job)) == 1


def test_ids_that_differ_only_in_what_is_not_shown_have_pictures_of_their_own(tmp_path: Path) -> None:
    write_table(tmp_path, id=["https://h/view?n=1", "https://h/view?n=2", "plain"], prompt=["p"] * 3)
    job = make_job(tmp_path)
    run_here(job)
    rows = all_rows(job)
    assert [row["id"] for row in rows] == ["https://h/view", "https://h/view", "plain"]
    assert len({row["lineage"]["seed"] for row in rows}) == 3
    assert rows[2]["lineage"]["seed"] == derive_seed(job.params.seed, "id:plain", 0)


def test_an_id_that_holds_an_address_inside_shows_no_signature(tmp_path: Path) -> None:
    write_table(tmp_path, id=[{"url": f"https://h/x?{SECRET}"}], prompt=["p"])
    job = make_job(tmp_path)
    run_here(job)
    assert "canary" not in str(all_rows(job))


def test_rejected_rows_of_a_unit_are_looked_up_and_not_searched_for(tmp_path: Path) -> None:
    """Each comparison of a place with the unit's list is counted: there are as many as samples, not their square."""

    class Place(tuple):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Place.compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    rows, samples = 50, 8
    write_prompts(tmp_path / "manifest" / "a.parquet", [""] * rows)
    job = make_job(tmp_path, params__samples_per_row=samples, compute__rows_per_unit=rows)
    unit, context = first_unit(job)
    places = tuple(Place((row, sample)) for row in range(rows) for sample in range(samples))
    object.__setattr__(unit, "only", places)
    assert prepare(unit, context).num_rows == rows * samples
    assert Place.compared <= 4 * rows * samples
    run_here(job)
    retry_here(job)
    assert len(all_rows(job, "rejected")) == rows * samples


def test_a_rejected_row_says_what_to_do_about_it(tmp_path: Path) -> None:
    write_table(tmp_path, image=["http://example.com/x.png", "/etc/passwd"])
    job = make_job(tmp_path, "caption")
    run_here(job)
    (_, of_http), (_, of_place) = rejections(job)
    assert of_http.endswith("Or set input.allow_http.") and "input.allow_outside_root" in of_place


def test_prompts_of_any_script_are_kept_to_the_letter_and_too_long_ones_are_rejected(tmp_path: Path) -> None:
    prompts = ["👩‍🎨🎨", "شمس فوق البحر", "<|im_start|>system\n<image>", '=HYPERLINK("x")', "w" * 100_000]
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    job = make_job(tmp_path)
    run_here(job)
    assert [row["prompt"] for row in all_rows(job)] == prompts[:-1]
    (rejected,) = all_rows(job, "rejected")
    assert rejected["rejection"]["kind"] == "PromptRefused" and rejected["prompt"] == prompts[-1]


def test_rows_without_a_picture_in_an_edit_job_are_those_rows(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    pictures = make_job(tmp_path)
    run_here(pictures)
    picture = all_rows(pictures)[0]["image"]
    manifest = tmp_path / "edits" / "manifest"
    write_prompts(manifest / "b.parquet", ["x", "y", "z"], image=pa.array([picture, None, picture]))
    job = make_job(tmp_path / "edits", "edit")
    run_here(job)
    assert [row["lineage"]["source_row"] for row in all_rows(job)] == [0, 2]
    assert [row["rejection"]["kind"] for row in all_rows(job, "rejected")] == ["MissingPicture"]


def test_a_huge_cell_rejects_its_row_and_its_neighbours_are_delivered(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    pictures = pa.array([buffer.getvalue(), bytes(3_000_000), buffer.getvalue()])
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b", "c" * 3_000_000], image=pictures)
    columns = {"prompt": "prompt", "image": "image"}
    job = make_job(tmp_path, "edit", input__columns=columns, input__max_image_mb=1)
    run_here(job)
    assert [row["lineage"]["source_row"] for row in all_rows(job)] == [0]
    kinds = [row["rejection"]["kind"] for row in all_rows(job, "rejected")]
    assert kinds == ["PictureTooLarge", "PromptRefused"]
