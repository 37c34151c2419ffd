"""Who may import whom, how large a file may be, and that light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

FACE = ROOT / ".package" / "unipic"
ROOMS = ("model", "pipeline", "jobs")
FILES = sorted([path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + list(FACE.glob("*.py")))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 300, 50

LAYERS = [
    {"model.tiny.world"},
    {"model"},
    {"model.tiny"},
    {"model.tiny.training"},
    {
        "pipeline.closed",
        "pipeline.errors",
        "pipeline.crashpoints",
        "pipeline.sealed",
        "pipeline.places",
        "pipeline.machine",
        "pipeline.near",
        "pipeline.code_version",
    },
    {"pipeline.storage", "pipeline.params", "pipeline.openlineage_options"},
    {"pipeline.job", "pipeline.records"},
    {"pipeline.lineage", "pipeline.context"},
    {"pipeline.images"},
    {"pipeline.manifests"},
    {"pipeline.output"},
    {"pipeline.supervision"},
    {"pipeline.stages"},
    {"pipeline.preflight", "pipeline.probe", "pipeline.catalog"},
    {"pipeline.execution"},
    {"pipeline.run", "pipeline.plan"},
    {"pipeline.submission"},
    {"pipeline.audit"},
    {"pipeline.bench"},
    {"jobs.spec"},
    {"jobs.terminal"},
    {"jobs.api"},
    {"jobs.shapes"},
    {"jobs.commands"},
    {"jobs.cli"},
]
"""From the foundation up. A file imports from its own room and from layers below it, never from beside or above."""


def room_of(module: str) -> str:
    """The longest entry of `LAYERS` that `module` (without "unipic.") lies in."""
    names = [name for layer in LAYERS for name in layer if module == name or module.startswith(f"{name}.")]
    return max(names, key=len, default="")


def height(room: str) -> int:
    return next(at for at, layer in enumerate(LAYERS) if room in layer)


def module_of(path: Path) -> str:
    if path.is_relative_to(FACE):
        return "face"
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str, list[str], bool]]:
    """(line, module, names, whether at the module's top) of every import that runs."""
    tree = ast.parse(path.read_text())
    inside = {
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
                yield node.lineno, alias.name, [], node not in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the whole name"
            yield node.lineno, node.module or "", [alias.name for alias in node.names], node not in inside


def targets(module: str, names: list[str]) -> list[str]:
    """The modules that `from module import names` may load, without "unipic."."""
    if not module.startswith("unipic"):
        return []
    base = module.removeprefix("unipic").removeprefix(".")
    found = []
    for name in names or [""]:
        deeper = f"{base}.{name}".strip(".")
        path = ROOT.joinpath(*deeper.split("."))
        found.append(deeper if path.is_dir() or path.with_suffix(".py").is_file() else base)
    return [one for one in found if one]


def test_every_file_imports_from_its_own_room_or_from_below() -> None:
    breaches = []
    for path in FILES:
        ours = room_of(module_of(path))
        if module_of(path) in ("face", *ROOMS):
            continue
        assert ours, f"{path.relative_to(ROOT)} is in no room of LAYERS"
        for line, module, names, _ in imports(path):
            for target in targets(module, names):
                theirs = room_of(target)
                if theirs and theirs != ours and height(theirs) >= height(ours):
                    breaches.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert breaches == []


MODEL_IMPORTERS = {
    "stages/engine.py": "runs the model",
    "stages/forecast.py": "estimates memory from its sizes and holds prompts against its tokenizer",
    "stages/checkpoint_cache.py": "reads a checkpoint's list of digests, which needs no torch",
    "images/fit.py": "the CPU stage fits images to the model's square; it needs Pillow and numpy alone",
}


def test_few_files_import_the_model_and_lazily() -> None:
    breaches = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if path.is_relative_to(ROOT / "pipeline")
        for line, module, names, at_top in imports(path)
        if any(one.split(".")[0] == "model" for one in targets(module, names))
        and (at_top or str(path.relative_to(ROOT / "pipeline")) not in MODEL_IMPORTERS)
    ]
    assert breaches == []


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        ("model", ("ray", "fsspec", "s3fs", "boto3", "yaml")),
        ("pipeline", ("typer", "rich", "yaml")),
        ("pipeline/storage", ("ray", "torch")),
    ],
)
def test_a_room_knows_nothing_of_what_is_not_its_concern(room: str, packages: tuple[str, ...]) -> None:
    breaches = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if path.is_relative_to(ROOT / room)
        for line, module, _, _ in imports(path)
        if module.split(".")[0] in packages
    ]
    assert breaches == []


def test_nothing_is_imported_under_a_bare_top_level_name() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in [*FILES, *TESTS]
        for line, module, _, _ in imports(path)
        if module.split(".")[0] in ROOMS
    ]
    assert bare == []


def test_no_file_imports_a_private_name_of_another() -> None:
    private = [
        f"{path.relative_to(ROOT)}:{line} imports {name} from {module}"
        for path in FILES
        for line, module, names, _ in imports(path)
        for name in names
        if module.startswith("unipic") and name.startswith("_") and name != "__version__"
    ]
    assert private == []


def test_every_room_says_in_one_sentence_what_it_is_for() -> None:
    silent = []
    for folder in sorted({path.parent for path in FILES}):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        if not text.split("\n")[0].endswith("."):
            silent.append(str(folder.relative_to(ROOT)))
    assert silent == []


def test_files_and_functions_stay_small() -> None:
    long = [f"{path.relative_to(ROOT)}" for path in FILES if path.read_text().count("\n") > FILE_LINES]
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({lines} lines)")
    assert long == []


def loaded_by(module: str, packages: tuple[str, ...]) -> str:
    code = f"import sys, {module}; print([name for name in {packages} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "module",
    ["unipic", "unipic.model", "unipic.pipeline", "unipic.jobs", "unipic.jobs.cli", "unipic.jobs.spec.load"],
)
def test_importing_a_package_loads_neither_torch_nor_ray_nor_pyarrow(module: str) -> None:
    assert loaded_by(module, ("torch", "ray", "pyarrow")) == "[]"


@pytest.mark.parametrize(
    "module", ["unipic.pipeline.plan", "unipic.pipeline.audit.status", "unipic.pipeline.run", "unipic.model.checkpoint"]
)
def test_planning_and_status_load_neither_torch_nor_ray(module: str) -> None:
    assert loaded_by(module, ("torch", "ray")) == "[]"
