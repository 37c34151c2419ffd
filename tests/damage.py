"""Small finished outputs, and what may be done to them and to what they were made of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.fakes import make_job, receipts, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.repair_plan import RepairPlan, plan_repair
from unipic.pipeline.audit.report import Report
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.output.layout import receipt_path
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage


def prompts(root: Path, *names: str, rows: int = 10) -> None:
    for name in names or ("a",):
        write_prompts(root / "manifest" / f"{name}.parquet", [f"{name} {n}" for n in range(rows)])


def two_files(root: Path) -> Job:
    """A finished job over two manifest files, 10 rows and two units each."""
    prompts(root, "a", "b")
    job = make_job(root)
    run_here(job)
    return job


def pictures(root: Path, count: int = 10) -> Job:
    """A finished caption job over a folder of pictures."""
    (root / "pics").mkdir(parents=True)
    for n in range(count):
        Image.new("RGB", (20, 20), (n * 20, 0, 0)).save(root / "pics" / f"{n}.png")
    job = make_job(root, "caption", input__manifest=str(root / "pics"))
    run_here(job)
    return job


def damage_receipt(job: Job, file: str = "a.parquet") -> str:
    """Makes the receipt of the first unit of `file` unreadable; returns the unit."""
    unit = min(one.unit for one in receipts(job) if one.file == file)
    Path(job.output.uri, receipt_path(unit)).write_text('{"unit":')
    return unit


def miscount(job: Job, file: str) -> str:
    """Makes the receipt of the first unit of `file` count wrong; returns the unit."""
    unit = min(one.unit for one in receipts(job) if one.file == file)
    path = Path(job.output.uri, receipt_path(unit))
    path.write_text(sealed({**unsealed(path.read_text()), "ok": 7}))
    return unit


def data_parts(job: Job) -> list[Path]:
    return sorted(Path(job.output.uri, "data").iterdir())


def plan_of(job: Job) -> tuple[Report, RepairPlan]:
    report = verify(job.output.uri, Storage())
    return report, plan_repair(job.output.uri, Storage(), report)


def tree(job: Job) -> dict[str, bytes]:
    root = Path(job.output.uri)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def manifest_moves(root: Path, job: Job) -> None:
    (root / "manifest").rename(root / "elsewhere")


def manifest_changes(root: Path, job: Job) -> None:
    write_prompts(root / "manifest" / "a.parquet", ["other words"] * 10)


def checkpoint_goes(root: Path, job: Job) -> None:
    Path(job.model.checkpoint, "weights.safetensors").unlink()


def checkpoint_changes(root: Path, job: Job) -> None:
    Path(job.model.checkpoint, "weights.safetensors").write_bytes(b"others")
