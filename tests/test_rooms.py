"""The rooms: who may import whom, one copy of each module, and a wheel that holds everything."""

import ast
import functools
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("stores", "extractors", "models", "pipelines")

# What a room may import of ours, besides itself.
ALLOWED = {
    "stores": set(),
    "extractors": {"stores"},
    "models": {"stores"},
    "pipelines": {"stores", "extractors", "models"},
}
# Inside pipelines only the flows (`..._flow.py`) and their parts know Prefect.


def modules(room):
    return sorted((ROOT / room).rglob("*.py"))


@functools.cache
def imported(path):
    """(module, whether it is imported for types only) of every import in a file."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append((alias.name, id(node) in typing_only))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module, id(node) in typing_only))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards(room):
    for path in modules(room):
        for name, _ in imported(path):
            parts = name.split(".")
            if parts[0] == "vlpipe" and len(parts) > 1 and parts[1] in ROOMS:
                assert parts[1] in ALLOWED[room] | {room}, f"{path} imports {name}"
            assert parts[0] not in ROOMS, f"{path} imports the bare {name}"


def test_only_flows_know_prefect():
    for room in ROOMS:
        for path in modules(room):
            knows = any(
                name.split(".")[0] == "prefect" for name, typed in imported(path) if not typed
            )
            where = path.relative_to(ROOT).as_posix()
            is_flow = where.startswith("pipelines/prefect_parts/") or (
                where.startswith("pipelines/") and path.name.endswith("_flow.py")
            )
            assert not knows or is_flow, f"{where} imports Prefect"


def test_only_its_runner_knows_dask_clusters():
    for room in ROOMS:
        for path in modules(room):
            knows = any(name.split(".")[0] == "distributed" for name, _ in imported(path))
            assert not knows or path.parent.name == "runners", f"{path} imports distributed"


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


@pytest.fixture(scope="module")
def loaded():
    """What a process finds that loads all there is: first the public names, then every module."""
    code = (
        "import importlib, json, pkgutil, sys, vlpipe\n"
        "missing = []\n"
        f"for room in {ROOMS!r}:\n"
        "    m = importlib.import_module('vlpipe.' + room)\n"
        "    for name in getattr(m, '__all__', ()):\n"
        "        if not hasattr(m, name): missing.append(room + '.' + name)\n"
        "for m in pkgutil.walk_packages(vlpipe.__path__, 'vlpipe.'):\n"
        "    if not m.name.endswith(('__main__', '.worker')): importlib.import_module(m.name)\n"
        f"bare = sorted(set(sys.modules) & set({ROOMS!r}))\n"
        "print(json.dumps({'missing': missing, 'bare': bare}))\n"
    )
    return json.loads(run_python(code).splitlines()[-1])


def test_every_module_is_loaded_once_and_under_its_full_name(loaded):
    assert loaded["bare"] == []


def test_the_core_runs_without_prefect_and_without_a_cluster():
    code = (
        "import sys, vlpipe.pipelines.extraction.extract, vlpipe.pipelines.cli\n"
        "print([m for m in ('prefect', 'distributed', 'torch') if m in sys.modules])\n"
    )
    loaded = run_python(code)
    assert "prefect" not in loaded
    assert "distributed" not in loaded


def test_reading_a_store_needs_no_torch():
    loaded = run_python("import sys, vlpipe.stores; print('torch' in sys.modules)")
    assert loaded.strip() == "False"


def test_public_names_exist(loaded):
    assert loaded["missing"] == []


def test_no_file_is_called_something_that_says_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            assert path.stem not in vague, path


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_rooms(tmp_path):
    # A lost link or an ignored file is left out of the wheel without a word.
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("vlpipe-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = f"vlpipe/{path.relative_to(ROOT).as_posix()}"
                assert name in held, name
    assert "vlpipe/py.typed" in held
