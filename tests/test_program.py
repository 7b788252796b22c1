"""Experiments of a user's function with the commands: planned, executed on this machine, continued, shown, refused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT, command_environment
from tests.fork_server import fork_python
from tests.programs import WALK, curve, write_project

GRID = {"hparams": {"size": [0.5, 1.0], "seed": [0, 1]}}


def launch(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    cluster = [] if words[0] in ("status", "logs", "cancel", "retry") else ["--cluster", "local"]
    return fork_python("hpc.launch", *words, "--config", str(file), *cluster)


def newest(file: Path) -> SweepDir:
    return sweeps(file.parent / "runs")[-1]


def refusal(file: Path, *words: str) -> str:
    """The message of a command that refuses, and leaves nothing behind."""
    before = sorted(file.parent.glob("runs/*"))
    done = launch(file, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(file.parent.glob("runs/*")) == before
    return done.stderr


def test_a_grid_from_its_command_to_its_table(tmp_path: Path) -> None:
    file = write_project(tmp_path, **GRID)
    planned = launch(file, "grid", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "k=003_size=1.0_seed=1" in planned.stdout
    assert not (tmp_path / "runs").exists()
    done = launch(file, "grid")
    assert done.returncode == 0, done.stderr
    sweep = newest(file)
    rows = list(csv.DictReader(sweep.table_file("csv").read_text().splitlines()))
    assert [(row["size"], row["seed"], row["state"]) for row in rows if row["size"] == "0.5"] == [
        ("0.5", "1", "done"),
        ("0.5", "0", "done"),
    ]
    assert "best: size=0.5  val/x2 0.6958, the mean of 2 seeds" in done.stdout
    assert "images" not in done.stdout
    assert (tmp_path / "artifacts" / f"{sweep.name}_effects.png").is_file()
    assert not (tmp_path / "artifacts" / "best.ckpt").exists()
    assert "4 runs: 4 done" in launch(file, "status").stdout
    assert "walked to" in launch(file, "logs", "k=000").stdout

    # Another file of the same content is no change.
    (tmp_path / "walk.py").write_text(WALK)
    again = launch(file, "grid")
    assert "done before" in again.stdout
    assert "changed" not in again.stdout
    assert len(sweeps(tmp_path / "runs")) == 1

    best = launch(file, "train", "--best", "--set", "params.steps=40")
    assert best.returncode == 0, best.stderr
    assert "k=000_size=0.5_seed=0" in best.stderr or "k=001_size=0.5_seed=1" in best.stderr
    trained = newest(file).runs()[0]
    assert trained.config()["params"] == {"steps": 40, "size": 0.5}
    assert trained.result()


def test_compare_trains_a_base_and_variants(tmp_path: Path) -> None:
    variants = {"small": {"size": 0.1}, "large": {"size": 10.0}}
    file = write_project(tmp_path, params={"size": 1.0}, compare={"variants": variants})
    done = launch(file, "compare")
    assert done.returncode == 0, done.stderr
    assert [run.name for run in newest(file).runs()] == ["base", "small", "large"]
    assert "best: small" in done.stdout


def wait_for_rows(file: Path, count: int) -> SweepDir:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for sweep in sweeps(file.parent / "runs") if (file.parent / "runs").is_dir() else []:
            if all(run.metrics_file.exists() and len(run.metrics()) >= count for run in sweep.runs()[:1]):
                return sweep
        time.sleep(0.05)
    pytest.fail("the run does not get on")


@pytest.mark.parametrize(
    ("whom", "number"),
    [("program", signal.SIGKILL), ("supervisor", signal.SIGKILL), ("supervisor", signal.SIGUSR2)],
)
def test_edits_and_interruptions_change_no_result(tmp_path: Path, whom: str, number: signal.Signals) -> None:
    slow = {"params": {"pause_s": 0.03}, "checkpoint": {"every_steps": 1}, "hparams": {"seed": [3, 4]}}
    file = write_project(tmp_path, **slow)
    command = [sys.executable, "-m", "hpc.launch", "grid", "--config", str(file), "--cluster", "local"]
    with subprocess.Popen(command, cwd=ROOT, env=command_environment({}), stderr=subprocess.PIPE, text=True) as process:
        sweep = wait_for_rows(file, 5)
        run = sweep.runs()[0]
        # The second run waits.
        (tmp_path / "walk.py").write_text("this is no Python\n")
        reported = int(run.reports_file.read_text().partition('"pid": ')[2].partition(",")[0])
        os.kill(reported if whom == "program" else int(run.attempts()[-1].pid or 0), number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    causes = [[attempt.cause for attempt in each.attempts()] for each in sweep.runs()]
    assert causes == [["TIMEOUT" if number == signal.SIGUSR2 else "KILLED", "DONE"], ["DONE"]]
    assert (run.attempts()[1].first_step or 0) >= 4

    write_project(tmp_path / "straight", hparams={"seed": [3, 4]})
    straight = launch(tmp_path / "straight" / "relay.yaml", "grid")
    assert straight.returncode == 0, straight.stderr
    for mine, theirs in zip(sweep.runs(), newest(tmp_path / "straight" / "relay.yaml").runs(), strict=True):
        assert curve(mine.metrics()) == curve(theirs.metrics())


def test_a_changed_project_is_said_and_new_code_continues(tmp_path: Path) -> None:
    broken = WALK.replace("p.steps", "p.steeps")
    file = write_project(tmp_path, broken, params={"size": 1.0})
    failed = launch(file, "train")
    assert failed.returncode == 2
    assert "AttributeError" in failed.stderr
    run = newest(file).runs()[0]
    (tmp_path / "walk.py").write_text(WALK)
    told = launch(file, "train")
    assert "continues with the code it was made with; walk.py of the project changed since" in told.stdout
    fixed = launch(file, "train", "--new-code")
    assert "continues with the current code" in fixed.stdout
    retried = launch(file, "retry", "--failed")
    assert retried.returncode == 0, retried.stderr
    assert [attempt.cause for attempt in run.attempts()] == ["CRASHED", "DONE"]
    assert len(sweeps(tmp_path / "runs")) == 1


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"params": {"wdith": 1}}, ["train"], "params.wdith: unknown; walk.Params has steps, size, pause_s, seed"),
        (
            {"hparams": {"size": [1.0, "big"]}},
            ["grid"],
            "params.size: 'big' is not a number; walk.Params.size: float = 1.0 (k=001_size=big)",
        ),
        ({"program": {"function": "walk:tain"}}, ["train"], "walk has no `tain`; functions that take a run: train"),
        ({"program": {"function": "wlak:train"}}, ["train"], "there is no module wlak in the project"),
        ({"program": {"function": "walk"}}, ["train"], "program.function: 'walk' is not allowed"),
        (
            {"program": {"function": "walk:train", "fuction": 1}},
            ["train"],
            "program.fuction: unknown key; did you mean 'function'?",
        ),
        ({"metrics": None}, ["train"], "metrics: missing"),
        ({}, ["grid"], "hparams: no axis to search"),
        ({"hparams": {"size": 3}}, ["grid"], "hparams.size: 3 is no list of values"),
        ({"hparams": {"size": [1.0, 2.0]}, "params": {"size": 1.0}}, ["grid"], "hparams.size: is given in params, too"),
        ({"hparams": {"size": [1, 1.0]}}, ["grid"], "are the same run: their parameters are equal"),
        ({"project": {"path": "nowhere"}}, ["train"], "nowhere: no such folder"),
        ({"project": {"links": ["data"]}}, ["train"], "project.links: data: "),
        ({"inputs": ["data.txt"]}, ["train"], "inputs: data.txt: "),
        # Built into Python, so it has no file.
        ({"program": {"function": "time:slept"}}, ["train"], "program.function: time has no `slept`"),
        ({"paths": {"runs_dir": "/tmp"}}, ["train"], "program.name: missing; paths.runs_dir (/tmp) lies outside"),
        ({}, ["train", "--max-epochs", "3"], "--max-epochs: only for experiments on images"),
        (GRID, ["grid", "--refined"], "--refined: only for experiments on images"),
        (GRID, ["train", "--best"], "--best: there is no grid of this program over these axes yet; run it first: "),
        ({"program": {"function": "walk:train", "python": "bash -c '"}}, ["train"], "No closing quotation; quote it"),
        ({"hparams": {"a-b": [1, 2]}}, ["grid"], "'a-b': is no name of a parameter that can be varied"),
        (
            {"params": {"size": 1.0}, "compare": {"variants": {"base": {"size": 2.0}}}},
            ["compare"],
            "compare.variants.base",
        ),
        ({"project": {"writes": ["../x"]}}, ["train"], "project.writes: ../x: give a path below the project"),
        ({}, ["lr-sweep"], "has a program, and this command is for experiments on images"),
        ({}, ["evaluate"], "has a program, and this command is for experiments on images"),
        ({}, ["pipeline"], "has a program, and this command is for experiments on images"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], words: list[str], said: str
) -> None:
    file = write_project(tmp_path, **changes)
    if changes.get("metrics", 1) is None:
        content = yaml_file.read_mapping(file)
        del content["metrics"]
        file.write_text(yaml_file.dump_yaml(content))
    assert said in refusal(file, *words)


def test_planning_imports_no_torch(tmp_path: Path) -> None:
    """The project's own Python imports it, in a process of its own."""
    file = write_project(tmp_path, "import torch\n" + WALK)
    code = f"""
import sys
from jobs.train import request
request({str(file)!r}, [])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_parameters_may_have_the_names_of_columns(tmp_path: Path) -> None:
    code = (
        "def train(run_, run: int, tag: str, steps: int, seed: int):\n    run_.log({'val/x2': run * steps}, step=1)\n"
    )
    axes = {"run": [1, 2], "steps": [3, 4], "seed": [0, 1]}
    file = write_project(tmp_path, code, hparams={**axes, "tag": "named"}, params={"tag": "a"})
    done = launch(file, "grid")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(newest(file).table_file("csv").read_text().splitlines()))
    assert newest(file).name.startswith("named_")
    assert rows[0]["run"] == "k=000_run=1_steps=3_seed=0"
    assert [rows[0][name] for name in ("params.run", "params.steps", "seed", "val/x2")] == ["1", "3", "0", "3"]
    assert len(rows) == 8


def test_a_metric_with_the_name_of_an_axis_is_another_column(tmp_path: Path) -> None:
    code = "def train(run, lr: float):\n    run.log({'val/x2': lr, 'lr': 4.0 - lr}, step=1)\n"
    file = write_project(tmp_path, code, hparams={"lr": [1.0, 3.0]})
    done = launch(file, "grid")
    assert done.returncode == 0, done.stderr
    assert "best: k=000_lr=1.0" in done.stdout
    rows = list(csv.DictReader(newest(file).table_file("csv").read_text().splitlines()))
    assert [(row["lr"], row["lr (logged)"]) for row in rows] == [("1.0", "3.0"), ("3.0", "1.0")]
    other = launch(file, "grid", "--set", "metrics.select.direction=max")
    assert "was planned with metrics.select val/x2 (min), and keeps it; to start over" in other.stderr


def test_ten_thousand_parameters(tmp_path: Path) -> None:
    code = "def train(run, **params):\n    return {'n': len(params)}\n"
    file = write_project(tmp_path, code, params={f"p{number}": number for number in range(10_000)})
    done = launch(file, "train")
    assert done.returncode == 0, done.stderr
    result = newest(file).runs()[0].result()
    assert result
    assert result["columns"]["n"] == 10_000
