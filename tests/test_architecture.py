"""Who may import whom: jobs → pipeline → model, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RANK = {"model": 0, "pipeline": 1, "jobs": 2}
FILES = sorted(path for room in RANK for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, top-level package or package.module, whether at the module's top) of every import that runs."""
    tree = ast.parse(path.read_text())
    top = set(ast.walk(tree)) - {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, node in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; say the whole name"
            yield node.lineno, node.module or "", node in top


def breaches(rule: str) -> list[str]:
    found = []
    for path in FILES:
        room = path.relative_to(ROOT).parts[0]
        for line, name, at_top in imports(path):
            package = name.split(".")[0]
            where = f"{path.relative_to(ROOT)}:{line} imports {name}"
            if rule == "upwards" and RANK.get(package, -1) > RANK[room]:
                found.append(where)
            outsider = room == "pipeline" and package == "model"
            if rule == "model" and outsider and (path.name != "replica.py" or at_top):
                found.append(where)
            if rule == "ray, storage and YAML" and room == "model" and package in ("ray", "fsspec", "s3fs", "yaml"):
                found.append(where)
            if rule == "command line and YAML" and room == "pipeline" and package in ("typer", "rich", "yaml"):
                found.append(where)
    return found


@pytest.mark.parametrize("rule", ["upwards", "model", "ray, storage and YAML", "command line and YAML"])
def test_arrows_run_from_jobs_to_pipeline_to_model(rule: str) -> None:
    assert len(FILES) > 20
    assert breaches(rule) == []


@pytest.mark.parametrize("package", ["model", "pipeline", "jobs", "jobs.cli", "jobs.spec", "pipeline.job"])
def test_importing_a_package_loads_neither_torch_nor_ray_nor_pyarrow(package: str) -> None:
    code = f"import sys, {package}; print([name for name in ('torch', 'ray', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["pipeline.plan", "pipeline.status", "pipeline.run", "model.checkpoint"])
def test_planning_and_status_load_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_and_functions_stay_small() -> None:
    long = [f"{path.relative_to(ROOT)}" for path in FILES if path.read_text().count("\n") > 350]
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 80:
                long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert long == []
