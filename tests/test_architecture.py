"""The rules that hold without anyone remembering: layers, no circles, a light login node."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Set
from pathlib import Path

import pytest

from src.models.registry import NETWORKS
from tests.conftest import ROOT

LAYERS = {"relay": {"relay"}, "src": {"relay", "src"}, "jobs": {"relay", "src", "jobs"}, "hpc": {"relay", "hpc"}}
# Thin: the commands that the report names. They may import all.
LOCAL_COMMANDS = {f"src.{name}" for name in ("train", "lr_finder", "grid_search", "evaluate", "compare_runs", "demo")}
# The only module of hpc that imports jobs.
FINDS_WORKS = "hpc.works"
HEAVY = ("torch", "torchvision", "datasets", "pandas", "matplotlib", "tensorboard", "PIL")
# What commands import that only submit, show or collect.
ON_THE_LOGIN_NODE = (
    "hpc.launch",
    "hpc.submission.launching",
    "hpc.commands.submit",
    "hpc.commands.manage",
    "hpc.monitor.retry",
    "hpc.monitor.status",
    "hpc.monitor.tensorboard",
    "hpc.submission.submit",
    "hpc.submission.local_pool",
    "hpc.monitor.status_rows",
    "hpc.aggregate",
    "src.demo",
    "hpc.doctor.page",
    "hpc.pipeline.advance",
    "hpc.node.run_lock",
    "src.train",
    "src.reporting.compose",
    "src.requests",
    "relay.results.tables.table",
    "src.data.dataset",
    "relay.work",
    "jobs",
)
MAX_LINES = 500


@functools.cache
def modules() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> set[str]:
    nodes = ast.walk(parsed(path))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def forbidden(module: str, imported: Set[str]) -> set[str]:
    """What a module imports of the layers that it must not know."""
    layer = module.split(".")[0]
    allowed = (
        set(LAYERS) if module in LOCAL_COMMANDS else LAYERS[layer] | ({"jobs"} if module == FINDS_WORKS else set())
    )
    return {name for name in imported if name.split(".")[0] in LAYERS and name.split(".")[0] not in allowed}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_layer_imports_only_itself_and_those_below(path: Path) -> None:
    assert forbidden(name_of(path), imports_of(path)) == set()


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("hpc.submission.launching", "src.config.loading"),
        ("hpc.works", "src.requests"),
        ("hpc.node.task", "jobs"),
        ("relay.runs.sweeps", "src.config.schema"),
        ("relay.work", "jobs.train"),
        ("relay.files", "hpc.slurm"),
        ("src.training.trainer", "hpc.slurm"),
        ("src.report", "jobs"),
        ("jobs.train", "hpc.slurm"),
    ],
)
def test_the_rule_of_the_layers_can_fail(module: str, imported: str) -> None:
    assert forbidden(module, {imported, "relay.files", "os"}) == {imported}


# Each imports only those before it; what lies in no folder of relay is shared by all.
ROOMS = ("relay.program", "relay.config", "relay.runs", "relay.results", "relay.projects")


def wrong_room(module: str, imported: Set[str]) -> set[str]:
    """What a module of a folder of relay imports that comes after that folder; of relay.program, more than its own."""
    room = next((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), None)
    if room is None:
        return set()
    if room == ROOMS[0]:
        own = ("relay.program.", "relay.errors.", "relay.files.")
        return {name for name in imported if name.startswith("relay.") and not f"{name}.".startswith(own)}
    later = tuple(f"{each}." for each in ROOMS[ROOMS.index(room) + 1 :])
    return {name for name in imported if later and f"{name}.".startswith(later)}


@pytest.mark.parametrize("path", [path for path in modules() if ROOT / "relay" in path.parents], ids=name_of)
def test_the_rooms_of_relay_import_one_way(path: Path) -> None:
    assert wrong_room(name_of(path), imported_modules(path)) == set()


def test_the_rule_of_the_rooms_can_fail() -> None:
    for module, imported in (
        ("relay.program.states", "relay.log"),
        ("relay.config.paths", "relay.runs.sweeps"),
        ("relay.runs.sweeps", "relay.results.answer"),
        ("relay.results.answer", "relay.projects.request"),
    ):
        assert wrong_room(module, {imported, "relay.files"}) == {imported}


def test_a_program_needs_the_standard_library_alone() -> None:
    """A user's process gets relay.program and nothing else of Relay, and may have no torch."""
    code = """
import importlib, pathlib, sys
for name in ("torch", "numpy", "pydantic", "yaml"):
    sys.modules[name] = None
for path in pathlib.Path("relay/program").glob("*.py"):
    importlib.import_module(f"relay.program.{path.stem}".removesuffix(".__init__"))
"""
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, env={}, timeout=60, check=True)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_file_is_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.name != "utils.py"


@functools.cache
def known_names() -> frozenset[str]:
    return frozenset(map(name_of, modules()))


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    """Modules of ours that a file imports, anywhere in it. `from src.data import hub` imports one, src.data.hub."""
    known = known_names()
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) | ({node.module} if names - known else set())
    return (known & found) - {name_of(path)}


def check_one_way(graph: Mapping[str, Set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for imported in graph[name]:
                visit(imported, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done) == len(graph)


def test_nothing_imports_in_a_circle() -> None:
    """Imports inside functions and under TYPE_CHECKING count too."""
    check_one_way({name_of(path): imported_modules(path) for path in modules()})


@functools.cache
def folders() -> frozenset[str]:
    return frozenset(name_of(path) for path in modules() if path.name == "__init__.py")


def folder_of(module: str) -> str:
    """The innermost folder: `relay.results.tables` of `relay.results.tables.view`. A module in no folder of its layer
    stands for itself.
    """
    return module if module in folders() or module.count(".") < 2 else module.rpartition(".")[0]


def test_folders_import_one_way() -> None:
    graph: dict[str, set[str]] = {folder_of(name_of(path)): set() for path in modules()}
    for path in modules():
        folder = folder_of(name_of(path))
        graph[folder] |= {folder_of(name) for name in imported_modules(path) if "." in name or name == "jobs"} - {
            folder
        }
    check_one_way(graph)


def named_in(text: str) -> set[str]:
    """What a text names of the networks: as a quoted value, or by their code or what the report cites for them."""
    quoted = {name for name in NETWORKS if re.search(rf"[\"'`]{name}[\"'`]", text)}
    words = {word for network in NETWORKS.values() for word in (network.module, network.class_name)}
    words |= {word for network in NETWORKS.values() for word in network.references}
    return quoted | {word for word in words if word in text}


def test_networks_are_named_in_their_folder_only() -> None:
    """A network is added with its file and its entry: no other code knows one."""
    files = [path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.suffix not in ("", ".pyc")]
    outside = [path for path in files if ROOT / "src" / "models" not in path.parents]
    assert len(outside) > 200
    assert [(path, name) for path in outside for name in named_in(path.read_text())] == []
    assert all(named_in(f'network == "{name}"') == {name} for name in NETWORKS)


def imported_of(path: Path, names: tuple[str, ...]) -> set[str]:
    """What a file imports of these modules and folders."""
    return {each for each in imported_modules(path) if f"{each}.".startswith(tuple(f"{name}." for name in names))}


def test_training_imports_no_results_and_hpc_only_to_collect_them() -> None:
    collecting = {"hpc.aggregate", "hpc.submission.outcome"}
    for folder in ("src/training", "src/data", "src/models", "hpc"):
        for path in (ROOT / folder).rglob("*.py"):
            assert name_of(path) in collecting or imported_of(path, ("relay.results",)) == set(), path


@pytest.mark.parametrize("path", [*(path for path in modules() if path.name == "__init__.py")], ids=name_of)
def test_a_folder_says_in_a_sentence_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


def first_to_import(heavy: tuple[str, ...], modules: tuple[str, ...]) -> dict[str, list[str]]:
    """Which of `modules`, imported one after the other, imports which of the `heavy` ones first."""
    code = """
import importlib, json, sys
heavy, modules = map(json.loads, sys.argv[1:])
found = {}
for name in modules:
    before = set(sys.modules)
    importlib.import_module(name)
    found[name] = [each for each in heavy if each in sys.modules and each not in before]
print(json.dumps({name: new for name, new in found.items() if new}))
"""
    command = [sys.executable, "-c", code, json.dumps(heavy), json.dumps(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_login_node_imports_nothing_heavy() -> None:
    assert first_to_import(HEAVY, ON_THE_LOGIN_NODE) == {}


def test_the_rule_of_the_login_node_can_fail() -> None:
    assert first_to_import(HEAVY, ("relay.files", "src.training.optim")) == {"src.training.optim": ["torch"]}
