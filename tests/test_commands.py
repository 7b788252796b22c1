"""The commands as a user types them, each in its own process."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from relay.program.states import newest_step
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep, sweeps
from src.config.loading import load_config
from src.config.schema import Config
from src.models.registry import build_model
from src.requests import grid_request
from tests.conftest import ROOT, assert_same_run
from tests.fork_server import fork_python
from tests.terminal import Terminal
from tests.test_hints import hints_in, paste


def runs_in(folder: Path) -> list[RunDir]:
    return [run for sweep in sweeps(folder) for run in sweep.runs()]


def start(*words: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen[Any]) -> None:
    """Wait until the running run has logged `count` rows."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        logged = [
            len(run.metrics_file.read_text().splitlines()) for run in runs_in(folder) if run.metrics_file.exists()
        ]
        if sum(logged) >= count:
            return
        time.sleep(0.02)
    pytest.fail("the run did not get on")


def test_ctrl_c_once_saves_and_the_same_command_goes_on(small_file: Path, tmp_path: Path) -> None:
    words = ["src.train", "--config", str(small_file), "--max_epochs", "25", "--seed", "3"]
    process = start(*words)
    wait_for_rows(tmp_path / "runs", 12, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the state is saved" in errors
    (hint,) = (line for line in hints_in(errors) if "src.train" in line)
    assert "Traceback" not in errors
    again = paste(hint)
    assert again.returncode == 0, again.stderr
    assert "resumes from step" in again.stderr
    whole = fork_python(*words, "--set", f"paths.runs_dir={tmp_path / 'whole'}", "--here")
    assert whole.returncode == 0, whole.stderr
    broken, straight = runs_in(tmp_path / "runs"), runs_in(tmp_path / "whole")
    assert len(broken) == len(straight) == 1
    assert [a.cause for a in broken[0].attempts()] == ["INTERRUPTED", "DONE"]
    assert_same_run(straight[0], broken[0])
    third = fork_python(*words)
    assert "done before" in third.stdout
    assert len(runs_in(tmp_path / "runs")) == 1


def test_a_closed_terminal_saves_as_ctrl_c_does(small_file: Path, tmp_path: Path) -> None:
    words = ["src.train", "--config", str(small_file), "--max_epochs", "400"]
    terminal = Terminal(*words)
    wait_for_rows(tmp_path / "runs", 12, terminal.process)
    terminal.close()
    assert terminal.process.wait(60) == 130
    (run,) = runs_in(tmp_path / "runs")
    (attempt,) = run.attempts()
    assert attempt.cause == "INTERRUPTED"
    assert attempt.last_step > 0
    assert newest_step(run.checkpoints) == attempt.last_step


def test_nohup_keeps_a_training_from_its_terminals_end(small_file: Path, tmp_path: Path) -> None:
    process = start("src.train", "--config", str(small_file), "--max_epochs", "15", before=["nohup"])
    wait_for_rows(tmp_path / "runs", 12, process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (run,) = runs_in(tmp_path / "runs")
    assert [a.cause for a in run.attempts()] == ["DONE"]


def test_the_commands_of_the_report_one_after_the_other(small_file: Path, tmp_path: Path) -> None:
    config = ["--config", str(small_file)]
    artifacts = tmp_path / "artifacts"

    checks = fork_python("src.checks", *config)
    assert checks.returncode == 0, checks.stdout + checks.stderr
    for question in (
        "D2   train 96, val 20, test 20",
        "D5 ",
        "D11  batch: images [16, 3, 16, 16]",
        "M0 ",
        "M2   initial loss",
    ):
        assert question in checks.stdout
    (checked,) = (artifacts / "checks").iterdir()
    assert checked.name.startswith("small-")
    assert json.loads((checked / "checks.json").read_text())["splits"] == {"train": 96, "val": 20, "test": 20}
    assert (checked / "class_distribution.png").read_bytes().startswith(b"\x89PNG")
    assert (checked / "examples.png").read_bytes().startswith(b"\x89PNG")

    small_fit = fork_python("src.train", *config, "--here", "--overfit-small", "--set", "train.optimizer.lr=0.02")
    assert "M3   overfit test: 32 examples, 20 epochs, train loss" in small_fit.stdout, small_fit.stderr
    assert not (artifacts / "best.ckpt").exists()

    grid = fork_python("src.grid_search", *config)
    assert grid.returncode == 0, grid.stderr
    assert "best: k=00" in grid.stdout

    compared = fork_python("src.compare_runs", *config)
    assert compared.returncode == 0, compared.stderr
    for axis in ("lr", "num_modules"):
        searched = sweeps(tmp_path / "runs")[-1]
        figure = searched.figure(f"compare_{axis}")
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert (artifacts / f"{searched.name}_compare_{axis}.png").read_bytes() == figure.read_bytes()

    best = fork_python("src.train", *config, "--best")
    assert best.returncode == 0, best.stderr
    assert (artifacts / "best.ckpt").is_file()
    assert (artifacts / "best.yaml").is_file()

    evaluated = fork_python(
        "src.evaluate", *config, "--here", "--checkpoint", str(artifacts / "best.ckpt"), "--split", "val", "--json"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    measured = json.loads(evaluated.stdout)
    source = json.loads((artifacts / "best.json").read_text())["result"]["best"]
    assert (measured["split"], measured["n"]) == ("val", 20)
    assert measured["accuracy"] == source["accuracy"]
    assert measured["loss"] == pytest.approx(source["loss"], rel=1e-6)

    smaller = ["--set", "refine.epochs=1", "--set", "refine.lr_factors=[0.5,1.0]"]
    refined = fork_python("src.grid_search", *config, "--here", "--refined", *smaller)
    assert refined.returncode == 0, refined.stderr
    assert "grid_refined_" in refined.stdout


def test_evaluate_takes_a_checkpoint_of_the_reports_program(
    small: Callable[..., Config], small_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "best_model2.ckpt"
    torch.save({"epoch": 3, "model_state_dict": build_model(small().model).state_dict(), "val_acc": 0.5}, path)
    done = fork_python("src.evaluate", "--config", str(small_file), "--checkpoint", str(path), "--json", "--here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["split"] == "test"
    shown = fork_python("src.evaluate", "--config", str(small_file), "--checkpoint", str(path))
    assert "test: n 20, 95 % intervals" in shown.stdout
    assert re.search(r"^ *macro_f1 +0\.\d+ +0(\.\d+)? +0\.\d+ *$", shown.stdout, re.MULTILINE), shown.stdout
    other = fork_python(
        "src.evaluate", "--config", str(small_file), "--checkpoint", str(path), "--set", "model.num_modules=2"
    )
    assert other.returncode == 2
    assert "Set model.type" in other.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["src.train", "--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["src.train", "--set", "train.optimizer.lr=fast"], "train.optimizer.lr: 'fast'"),
        (["src.grid_search", "--set", "hparams.lr=[]"], "hparams.lr"),
        (["src.lr_finder", "--set", "lr_finder.max_lr=0"], "lr_finder.max_lr: 0"),
        (["src.evaluate", "--checkpoint", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["src.train", "--max_epochs", "0"], "train.epochs: 0"),
        (["src.train", "--max_steps", "0"], "train.max_steps: 0"),
        (["src.evaluate", "--split", "train"], "evaluation.split: 'train'"),
        (["src.train", "--best"], "run the grid first"),
        (["src.train", "--set", "dataset.name=./nowhere"], "nowhere"),
        (["src.compare_runs"], "no grid"),
        (["src.train", "--unfinished"], "error: --unfinished: has no effect without --best"),
        (["src.grid_search", "--unfinished"], "error: --unfinished: has no effect without --refined"),
        (["hpc.launch", "train", "--unfinished"], "error: --unfinished: has no effect without --best"),
        (["hpc.launch", "grid", "--unfinished"], "error: --unfinished: has no effect without --refined"),
        (["hpc.launch", "grid", "--cluster", "mars"], "mars: there is no such profile"),
        (["hpc.launch", "status"], "there are no runs yet"),
        (["hpc.launch", "logs", "k=000"], "there are no runs yet"),
        (["hpc.aggregate"], "there are no runs yet"),
        (["hpc.launch", "train", "--no-such-option"], "no-such-option"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(small_file: Path, words: list[str], expected: str) -> None:
    config = [] if "--config" in words else ["--config", str(small_file)]
    done = fork_python(*words, *config)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list((small_file.parent / "runs").glob("[a-z]*"))


def test_runs_that_cannot_be_written_are_a_clear_error(small_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fork_python(
        "src.train", "--config", str(small_file), "--set", f"paths.runs_dir={tmp_path / 'file' / 'runs'}"
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["status"], ["logs"], ["cancel", "all"], ["tensorboard"]])
def test_an_option_that_would_do_nothing_is_none(words: list[str]) -> None:
    refused = fork_python("hpc.launch", *words, "--cluster", "local")
    assert refused.returncode == 2
    assert "No such option: --cluster" in refused.stderr


def test_a_dry_run_refuses_what_the_launch_would_refuse(
    small: Callable[..., Config], small_file: Path, tmp_path: Path
) -> None:
    sweep = open_sweep(grid_request(small()))[0]
    for run in sweep.runs()[:2]:
        run.record_attempt(1, start=0.0, total_steps=12)
        run.record_attempt(1, end=3600.0, cause="DONE", first_step=0, last_step=12, save_s=1.0)
        run.write_result({"steps": 12})
    words = ["hpc.launch", "grid", "--config", str(small_file), "--cluster", "local", "--dry-run"]
    assert fork_python(*words, "--max-slice-hours", "3").returncode == 0
    refused = fork_python(*words, "--max-slice-hours", "1")
    assert refused.returncode == 2
    assert "2 to do" in refused.stdout
    assert "--max-slice-hours 1: nothing was submitted; forecast: 2 slice-hours" in refused.stderr


@pytest.mark.parametrize("command", [["src.evaluate"], ["hpc.launch", "evaluate", "--cluster", "local"]])
def test_a_wrong_evaluation_leaves_no_run(
    command: list[str], small: Callable[..., Config], small_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.ckpt").write_text("100 epochs, looked good")
    weights = {"model_state_dict": build_model(small().model).state_dict()}
    torch.save(weights, tmp_path / "of_others.ckpt")
    torch.save({**weights, "config": small().to_dict()}, tmp_path / "ours.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "ours.ckpt").read_bytes()[:-2000])
    two_classes = ["--set", "dataset.classes=2", "--set", "model.num_classes=2"]
    for name, words, expected in (
        ("notes.ckpt", [], "torch cannot read it"),
        ("torn.ckpt", [], "is damaged"),
        ("nowhere.ckpt", [], "no such checkpoint"),
        ("", [], "is a folder"),
        ("x" * 300, [], "no file can have so long a name"),
        ("of_others.ckpt", two_classes, "Set model.type, model.num_classes and the other options"),
        ("ours.ckpt", two_classes, "was trained for 4 classes, but model.num_classes is 2"),
        ("ours.ckpt", ["--set", "dataset.split.test=0"], "dataset.split.test: the split is empty"),
    ):
        given = ["--config", str(small_file), "--checkpoint", str(tmp_path / name), *words]
        done = fork_python(*command, *given)
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
        assert runs_in(tmp_path / "runs") == []


@pytest.mark.parametrize("name", [f"{'x' * 244}.ckpt", f"{'x' * 252}.pt"])
def test_a_checkpoint_may_have_a_long_name(
    small: Callable[..., Config], small_file: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    torch.save({"model_state_dict": build_model(small().model).state_dict()}, path)
    done = fork_python("src.evaluate", "--config", str(small_file), "--checkpoint", str(path), "--json", "--here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checkpoint"] == str(path)


def test_a_cell_that_fails_does_not_keep_the_others_from_theirs(small_file: Path, tmp_path: Path) -> None:
    words = ["--config", str(small_file), "--set", "hparams.num_modules=[1]"]
    request = grid_request(load_config(str(small_file), ["hparams.num_modules=[1]"]))
    broken, whole = open_sweep(request)[0].runs()
    text = broken.config_file.read_text()
    broken.config_file.write_text(text.replace("lr: 0.001", "lr: -1"))
    for _ in range(2):
        done = fork_python("src.grid_search", *words)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert f"best: {whole.name}" in done.stdout
        assert "1 of 2 runs not done; to see the log: " in done.stderr
        assert f"1 CRASHED ({broken.name}): {broken.config_file}" in done.stderr
        assert "train.optimizer.lr: -1" in done.stderr
        assert [run.result() is not None for run in (broken, whole)] == [False, True]
        assert len(broken.attempts()) == 1, "a crash is not tried again by itself"
    broken.config_file.write_text(text)
    command = shlex.split(done.stderr.partition("reports, then: ")[2].splitlines()[0])[2:]
    retried = fork_python(*command)
    assert retried.returncode == 0, retried.stderr
    assert [a.cause for a in broken.attempts()] == ["CRASHED", "DONE"]
    assert fork_python("src.grid_search", *words).returncode == 0


def test_the_overfit_test_has_its_own_epochs_a_figure_and_a_verdict(small_file: Path, tmp_path: Path) -> None:
    words = ["src.train", "--config", str(small_file), "--here", "--overfit_small", "--set", "train.overfit_size=8"]
    words += ["--set", "model.dropout=0.0", "--set", "train.optimizer.lr=0.02"]
    short = fork_python(*words, "--max_epochs", "2")
    assert short.returncode == 2
    assert "M3   overfit test: 8 examples, 2 epochs, train loss" in short.stdout
    assert "the overfit test failed" in short.stderr
    assert "train.overfit_epochs=4" in short.stderr
    assert "Traceback" not in short.stderr
    enough = fork_python(*words, "--set", "train.overfit_epochs=60")
    assert enough.returncode == 0, enough.stderr
    assert "overfit test: 8 examples, 60 epochs" in enough.stdout
    assert "train accuracy 1\n" in enough.stdout
    newest = sweeps(tmp_path / "runs")[-1]
    for figure in (newest.figure("overfit"), tmp_path / "artifacts" / f"{newest.name}_overfit.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_next_experiment_leaves_the_figures_of_the_one_before(small_file: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        words = ["--config", str(small_file), "--set", f"train.seed={seed}", "--set", "lr_finder.num_steps=10"]
        for command in (["src.checks"], ["src.lr_finder", "--here"]):
            done = fork_python(*command, *words)
            assert done.returncode == 0, done.stderr
    artifacts, made = tmp_path / "artifacts", sweeps(tmp_path / "runs")
    assert len(list((artifacts / "checks").glob("*/examples.png"))) == 2
    assert len(made) == 2
    for sweep in made:
        (run,) = sweep.runs()
        assert (artifacts / f"{sweep.name}_{run.name}.png").read_bytes() == run.figure("lr_finder").read_bytes()
        assert (artifacts / f"{sweep.name}_{run.name}.json").is_file()
