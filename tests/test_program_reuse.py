"""Finished runs of programs: taken by a later sweep if, and only if, they are what it would execute."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT
from tests.fork_server import fork_python
from tests.programs import WALK, write_project

GRID = {"inputs": [], "hparams": {"size": [0.5, 1.0]}}
WIDER = {"inputs": [], "hparams": {"size": [0.5, 1.0, 2.0]}}


def launch(file: Path, *words: str) -> str:
    """What the command says on both streams. Packages in the folder `site` beside the project are installed."""
    path = os.pathsep.join([str(ROOT), str(file.parent.parent / "site")])
    done = fork_python("hpc.launch", *words, "--config", str(file), "--cluster", "local", env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def newest(file: Path) -> SweepDir:
    return sweeps(file.parent / "runs")[-1]


def test_a_wider_grid_executes_only_what_is_new(tmp_path: Path) -> None:
    file = write_project(tmp_path, **GRID)
    launch(file, "grid")
    first = newest(file)
    said = launch(write_project(tmp_path, **WIDER), "grid")
    assert "to execute in full: 1 run: k=002_size=2.0" in said
    assert f"k=000_size=0.5: reuses {first.runs()[0].label}, which is the same run, on " in said
    wider = newest(file)
    assert wider != first
    assert [len(run.attempts()) for run in wider.runs()] == [0, 0, 1]
    assert [run.metrics() for run in wider.runs()[:2]] == [run.metrics() for run in first.runs()]
    rows = list(csv.DictReader(wider.table_file("csv").read_text().splitlines()))
    assert {row["size"]: row["state"] for row in rows} == dict.fromkeys(("0.5", "1.0", "2.0"), "done")
    # And once more, from a run that was taken itself; with --fresh, nothing is taken.
    said = launch(write_project(tmp_path, **{**WIDER, "hparams": {"size": [0.5, 3.0]}}), "grid")
    assert "to execute in full: 1 run: k=001_size=3.0" in said
    assert newest(file).runs()[0].result() == {**first.runs()[0].result(), "reused_from": first.runs()[0].label}  # type: ignore[dict-item]
    assert "reuses" not in launch(file, "grid", "--fresh")


def other_code(file: Path) -> None:
    (file.parent / "walk.py").write_text(WALK + "\n# Edited.\n")


def other_file(file: Path) -> None:
    (file.parent / "helper.py").write_text("x = 1\n")


def change(**sections: Any) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        file.write_text(yaml_file.dump_yaml({**yaml_file.read_mapping(file), **sections}))

    return write


def other_package(file: Path) -> None:
    """An upgrade of a package that the program may import."""
    package = file.parent.parent / "site" / "gadget-2.0.dist-info"
    (package.parent / "gadget-1.0.dist-info").rename(package)


def another_interpreter(file: Path) -> None:
    change(program={"function": "walk:train", "python": f"env {sys.executable}"})(file)


def edited_relay(file: Path) -> None:
    """As if the finished run had been executed by the code of an earlier Relay."""
    run = newest(file).runs()[0]
    (row,) = run.provenance_file.read_text().splitlines()
    digest = newest(file).meta()["snapshot"]
    run.provenance_file.write_text(row.replace(digest, "0" * len(digest)) + "\n")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (other_code, "executed with other code of the project"),
        (other_file, "executed with other code of the project"),
        (other_package, "executed under other versions (gadget 1.0 -> 2.0)"),
        (another_interpreter, "executed with another value of program.python"),
        (
            change(metrics={"select": {"name": "x", "direction": "min"}}),
            "executed with another value of metrics.select",
        ),
        (edited_relay, "executed by another version of Relay"),
    ],
)
def test_what_may_change_a_result_is_executed_again(tmp_path: Path, edit: Callable[[Path], None], reason: str) -> None:
    (tmp_path / "site" / "gadget-1.0.dist-info").mkdir(parents=True)
    file = write_project(tmp_path / "mine", inputs=[], params={"steps": 10})
    launch(file, "train")
    edit(file)
    # A cell of a grid that is the run of before.
    compare = {"params": {"steps": 10}, "compare": {"variants": {"longer": {"steps": 20}}}}
    change(**compare)(file)
    said = launch(file, "compare")
    assert f"base: does not reuse {sweeps(file.parent / 'runs')[0].runs()[0].label}, which was {reason}" in said
    assert [len(run.attempts()) for run in newest(file).runs()] == [1, 1]


@pytest.mark.parametrize("inputs", [None, ["data.txt"]])
def test_only_known_and_equal_inputs_are_the_same(tmp_path: Path, inputs: list[str] | None) -> None:
    tmp_path.joinpath("data.txt").write_text("1")
    links = {"path": ".", "links": ["data.txt"]}
    file = write_project(tmp_path, project=links, inputs=inputs, params={"steps": 10})
    launch(file, "train")
    change(params={"steps": 10}, compare={"variants": {"longer": {"steps": 20}}})(file)
    assert ("reuses" in launch(file, "compare")) == (inputs is not None)
    (tmp_path / "data.txt").write_text("2")
    assert "reuses" not in launch(file, "compare", "--set", "compare.variants={shorter: {steps: 5}}")


OUTSIDE = """
import helper
import relay

def train(run: relay.Run, size: float = 1.0, seed: int = 0):
    for step in run.steps(3):
        run.log({"val/x2": helper.K * size})
"""


def test_code_from_outside_of_the_project_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "helper.py").write_text("K = 1\n")
    file = write_project(tmp_path / "mine", OUTSIDE, **GRID)
    launch(file, "grid")
    (tmp_path / "site" / "helper.py").write_text("K = 1000\n")
    write_project(tmp_path / "mine", OUTSIDE, **WIDER)
    assert "which was executed with code from outside of the project (helper)" in launch(file, "grid")
    assert [run.metrics()[-1]["val/x2"] for run in newest(file).runs()] == [500, 1000, 2000]


def test_an_installation_that_leads_into_the_project_leads_into_the_frozen_one(tmp_path: Path) -> None:
    """What `pip install -e .` of a project with a folder src writes: its path in a .pth file."""
    project = tmp_path / "mine"
    (project / "src" / "pk").mkdir(parents=True)
    code = OUTSIDE.replace("import helper\n", "").replace("helper.K", "1")
    file = write_project(project, "", program={"function": "pk.walk:train"}, **GRID)
    (project / "src" / "pk" / "walk.py").write_text(code.replace("run.log(", "print(__file__); run.log("))
    path = os.pathsep.join([str(ROOT), str(project / "src")])
    words = ["hpc.launch", "grid", "--config", str(file), "--cluster", "local"]
    done = fork_python(*words, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    (snapshot,) = (each for each in newest(file).project.iterdir() if each.is_dir())
    logs = "".join(each.read_text() for each in newest(file).jobs.glob("*out"))
    assert f"{snapshot}/src/pk/walk.py" in logs


def test_an_attempt_without_provenance_is_not_known(tmp_path: Path) -> None:
    """It was killed before it was recorded, and its state went into the run."""
    file = write_project(tmp_path / "mine", **GRID)
    launch(file, "grid")
    first, second = newest(file).runs()
    first.provenance_file.write_text(first.provenance_file.read_text().replace('"attempt": 1', '"attempt": 2'))
    second.provenance_file.write_text('{"attempt": 1\n{"attempt": 2}\n')
    write_project(tmp_path / "mine", **WIDER)
    said = launch(file, "grid")
    assert said.count("which was executed with code that is not known") == 2


def test_other_configurations_are_no_code(tmp_path: Path) -> None:
    file = write_project(tmp_path / "mine", **GRID)
    launch(file, "grid")
    other = file.with_name("wider.yaml")
    other.write_text(yaml_file.dump_yaml({**yaml_file.read_mapping(file), **WIDER}))
    (tmp_path / "mine" / "relay_alone_x").mkdir()
    (tmp_path / "mine" / "relay_alone_x" / "metrics.jsonl").write_text("{}\n")
    assert "to execute in full: 1 run: k=002_size=2.0" in launch(other, "grid")
