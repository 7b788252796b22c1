"""`relay new FOLDER --command`: the configuration of a script, with the parameters that its help shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc.commands.flags import flags_of
from relay.config import yaml_file
from tests.conftest import ROOT, command_environment
from tests.scripts import TRAIN

CLICK = """
Usage: t.py [OPTIONS]

Options:
  --lr FLOAT                Rate of learning.  [default: 0.001]
  --name TEXT               [required]
  --amp / --no-amp          Use amp  [default: amp]
  -b, --batch-size INTEGER  [default: 32]
  --help                    Show this message and exit.
"""
HUGGING_FACE = """
usage: run_clm.py [-h] [--model_name MODEL_NAME]
options:
  -h, --help            show this help message and exit
  --model_name MODEL_NAME, --model-name MODEL_NAME
                        The model (default: None)
  --learning_rate LEARNING_RATE, --learning-rate LEARNING_RATE
                        The initial (default: 5e-05)
  --do_train [DO_TRAIN]
                        whether (default: False)
  --sched {linear,cosine}
                        kind (default: linear)
  --betas BETAS [BETAS ...]
                        of Adam (default: [0.9, 0.999])
  --fp16                halves
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CLICK, {"lr": 0.001, "name": None, "batch-size": 32}),
        (
            HUGGING_FACE,
            {"model_name": None, "learning_rate": 5e-05, "do_train": False, "sched": "linear", "betas": [0.9, 0.999]},
        ),
        (
            "  --a A\n  --b B    (default: 1)\n  -c C, --cc C\n  --dd=INT  of d (default: x y)\n",
            {"a": None, "b": 1, "cc": None, "dd": "x y"},
        ),
        ("no options\n", {}),
    ],
)
def test_the_options_of_a_help(tmp_path: Path, text: str, found: dict[str, Any]) -> None:
    (tmp_path / "help.txt").write_text(text)
    flags = flags_of(["sh", "-c", "cat help.txt"], tmp_path)
    assert {flag.option: flag.default for flag in flags} == found


def new(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    env = {**kept, **command_environment({}), **variables, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hpc.launch", "new", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_configuration_that_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    done = new(tmp_path, "mine", "--command", "python train.py")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "mine" / "relay.yaml"
    content = yaml_file.read_mapping(file)
    # The defaults are in the source: its help does not show them.
    assert content["program"]["command"] == (
        "python train.py --lr {lr} --steps {steps} --pause {pause} --save-every {save_every}"
    )
    assert content["params"] == {"steps": 40, "pause": 0.0, "save_every": 10}
    assert content["hparams"] == {"lr": [0.1, 0.3]}
    assert '# restart: {checkpoint: "checkpoints/step-*", add: "--resume {checkpoint}"}' in file.read_text()
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("there is no .venv in the checkout: make setup")
    command = [str(ROOT / "bin" / "relay"), "grid", "--cluster", "local"]
    grid = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=120, check=False)
    assert grid.returncode == 0, grid.stderr
    assert "best: k=001_lr=0.3" in grid.stdout
    again = new(tmp_path, "mine", "--command", "python train.py")
    assert (again.returncode, "relay.yaml: exists already" in again.stderr) == (2, True)


def test_beside_the_script_with_the_python_of_its_environment(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = new(tmp_path, ".", "--command", "python train.py --pause 0")
    assert done.returncode == 0, done.stderr
    content = yaml_file.read_mapping(tmp_path / "relay.yaml")
    assert content["program"]["python"] == str(python)
    assert content["project"]["path"] == "."


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python no.py", "no.py: there is no such file"),
        ("python train.py --lr {lr}", "give the script with what never changes"),
        ("", "give the script with what never changes"),
        ("python 'train.py", "No closing quotation"),
    ],
)
def test_what_is_refused_makes_nothing(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    done = new(tmp_path, "mine", "--command", command)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "mine").exists()


def test_a_script_without_a_help(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise ValueError('no help')")
    done = new(tmp_path, "mine", "--command", "python train.py")
    assert done.returncode == 0, done.stderr
    assert "no help" in done.stderr
    assert yaml_file.read_mapping(tmp_path / "mine" / "relay.yaml")["params"] == {}
