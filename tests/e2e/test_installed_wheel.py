"""The wheel as a new user has it: in an environment of its own, beside files of theirs that have our folders' names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.patience import HANGS_S
from tests.places import ROOT

SOURCES = (".package", "pipeline", "model", "jobs", "configs", "pyproject.toml", "README.md", "LICENSE")
CLASHES = ("model.py", "model/__init__.py", "pipeline/__init__.py", "jobs/__init__.py", "configs/__init__.py")
JOB = {
    "input.manifest": "prompts.csv",
    "model.checkpoint": "builtin:tiny",
    "model.dtype": "float32",
    "params": "{image_size: 64, num_iterations: 4, diffusion_steps: 5}",
    "output.uri": "out",
    "compute": "{replicas: 1}",
}
SNIPPET = """
import unipic

job = unipic.GenerateJob(
    name="typed",
    input=unipic.Input(manifest="prompts.csv", columns=unipic.Columns(id="key", prompt="prompt")),
    model=unipic.Model(checkpoint="builtin:tiny"),
    output=unipic.Output(uri="out"),
    compute=unipic.Compute(replicas=unipic.Replicas(min=1, max=4)),
)
reveal_type(unipic.run(job).ok)
reveal_type(unipic.status("out").rejected_kinds)
reveal_type(unipic.Engine.load().generate(["a red circle"], num_iterations=4))
unipic.run(job, adress="auto")
unipic.rum(job)
"""


LIBRARIES = """[mypy]
[mypy-torch.*,transformers.*,ray.*,pyarrow.*,numpy.*]
follow_imports = skip
"""
"""Keeps the type checker out of large libraries: what is asked is whether it knows ours."""


def call(*command: str | Path, folder: Path) -> str:
    """What the command prints, run in `folder` by an environment that knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, timeout=HANGS_S
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir")
    call(sys.executable, "-m", "pip", "wheel", *options, built, source, folder=source)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has the wheel, and our dependencies from where the tests have them."""
    home = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", home, folder=home)
    executable = home / "bin" / "python"
    site = Path(call(executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home).strip())
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    call(sys.executable, "-m", "pip", "--python", executable, "install", *options, wheel, folder=home)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not followed
    return executable


@pytest.fixture
def clashes(tmp_path: Path) -> Path:
    """A folder of the user's, with modules of their own whose import would be our fault."""
    for name in CLASHES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise ImportError('{name} is the user\\'s own')\n")
    (tmp_path / "prompts.csv").write_text("key,prompt\na,a red circle\nb,a blue square\nc,two green triangles\n")
    return tmp_path


def test_the_wheel_has_the_checkpoint_the_examples_and_the_marker_of_types_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"unipic"}
    for needed in (
        "py.typed",
        "configs/generate.yaml",
        "configs/job.schema.json",
        "model/tiny/checkpoint/digests.json",
    ):
        assert f"unipic/{needed}" in names
    assert {name for name in names if name.endswith(".safetensors")} == {
        f"unipic/model/tiny/checkpoint/{name}.safetensors" for name in ("vae", "weights")
    }
    assert not [name for name in names if "test" in Path(name).name or "__pycache__" in name]
    shipped = {
        str(path.relative_to(ROOT)) for room in ("pipeline", "model", "jobs") for path in (ROOT / room).rglob("*.py")
    }
    assert shipped <= {name.removeprefix("unipic/") for name in names}


@pytest.mark.slow
def test_a_run_works_in_a_folder_that_has_the_users_own_model_pipeline_and_jobs(python: Path, clashes: Path) -> None:
    where = call(python, "-c", "import unipic; print(unipic.__file__)", folder=clashes)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    unipic = python.with_name("unipic")
    assert "generate" in call(unipic, "example", folder=clashes).split()
    (clashes / "job.yaml").write_text(call(unipic, "example", "generate", folder=clashes))
    changes = [word for key, value in JOB.items() for word in ("--set", f"{key}={value}")]
    assert "done: 3 of 3 rows ok" in call(unipic, "run", "job.yaml", *changes, folder=clashes)
    assert "3 data and 0 rejected of 3 rows" in call(python, "-m", "unipic", "verify", "out", folder=clashes)


@pytest.mark.slow
def test_a_type_checker_knows_the_installed_package(python: Path, clashes: Path) -> None:
    (clashes / "snippet.py").write_text(SNIPPET)
    (clashes / "mypy.ini").write_text(LIBRARIES)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "snippet.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=clashes, env=environment, capture_output=True, text=True, timeout=HANGS_S)
    told = re.findall(r"snippet\.py:(\d+): (error|note): (.*)", done.stdout)
    types = [text for _, kind, text in told if kind == "note" and text.startswith("Revealed")]
    errors = [text for _, kind, text in told if kind == "error"]
    assert types == [
        'Revealed type is "int"',
        'Revealed type is "dict[str, int]"',
        'Revealed type is "list[PIL.Image.Image]"',
    ], done.stdout
    assert len(errors) == 2, done.stdout
    assert 'Unexpected keyword argument "adress"' in errors[0]
    assert 'Module has no attribute "rum"' in errors[1]
