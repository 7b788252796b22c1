"""The command `relay`, from a folder of one's own: what it reads there, and what it suggests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT
from tests.programs import WALK, write_project

SHORT = {"params": {"steps": 20}, "hparams": {"size": [0.5, 1.0]}}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with packages called hpc, jobs and src, and `relay` as a link on the PATH."""
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("there is no .venv in the checkout: make setup")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "relay").symlink_to(ROOT / "bin" / "relay")
    folder = tmp_path / "here"
    for name in ("hpc", "jobs", "src"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('a package of the user')\n")
    return folder


def call(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command line, as typed into a shell in the folder."""
    own = next(parent / "bin" for parent in folder.parents if (parent / "bin" / "relay").is_symlink())
    env = {"PATH": f"{own}:{os.environ['PATH']}", "HOME": str(own.parent), "COLUMNS": "200"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )


def suggested(text: str) -> str:
    """The command that a message ends with."""
    return text.rpartition(": ")[2].strip()


def test_from_a_new_project_to_its_table(here: Path) -> None:
    made = call(here, "relay new mine")
    assert made.returncode == 0, made.stderr
    project = here / "mine"
    assert sorted(path.name for path in project.iterdir()) == ["char_lm.py", "data", "relay.yaml"]
    assert "relay verify" in made.stdout
    shutil.copytree(here / "hpc", project / "hpc")
    few = "--set hparams.lr=[1e-2] --set hparams.width=[8] --set params.steps=60"
    done = call(project, f"relay grid --cluster local {few}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "val/loss over the seeds" in done.stdout
    assert "3 runs: 3 done" in call(project, "relay status").stdout
    assert "val/loss" in call(project, "relay aggregate").stdout
    assert sorted(path.name for path in project.iterdir() if path.is_dir() and path.name != "__pycache__") == [
        *("artifacts", "data", "hpc", "logs", "runs")
    ]
    again = call(here, "relay new mine")
    assert (again.returncode, "mine: exists already" in again.stderr) == (2, True)
    assert call(here, "relay new 'a b'").returncode == 2


def test_what_it_suggests_works_when_pasted(here: Path) -> None:
    broken = WALK.replace("print(", "if run.attempt == 1: raise ValueError('once')\n    print(")
    file = write_project(here / "mine", broken, **SHORT)
    project = file.parent
    nothing = call(project, "relay status")
    assert nothing.returncode == 2
    failed = call(project, f"{suggested(nothing.stderr).replace('train', 'grid')} --cluster local")
    assert failed.returncode == 2, failed.stdout
    hint = next(line for line in failed.stderr.splitlines() if "fix what the error reports" in line)
    assert suggested(hint).startswith("relay retry grid_")
    assert sweeps(project / "runs")[0].meta()["call"]["module"] == "relay"
    again = call(project, suggested(hint))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 runs: 2 done" in call(project, "relay status").stdout
    misspelt = call(project, "relay stats")
    assert "Usage: relay [OPTIONS]" in misspelt.stderr
    assert "Did you mean 'status'?" in misspelt.stderr


def test_the_configuration_and_the_profile_of_the_folder(here: Path) -> None:
    project = write_project(here / "mine", **SHORT).parent
    (project / "clusters").mkdir()
    own = {"executor": "slurm", "partition": "mine", "slice": None, "needs_gpu": False}
    (project / "clusters" / "own.yaml").write_text(yaml_file.dump_yaml(own))
    planned = call(project, "relay grid --dry-run --cluster own")
    assert planned.returncode == 0, planned.stderr
    assert "#SBATCH --partition=mine" in planned.stdout
    unknown = call(project, "relay grid --dry-run --cluster nosuch")
    assert unknown.returncode == 2
    assert "in clusters and " in unknown.stderr
    assert f"{ROOT}/configs/clusters there are " in unknown.stderr
    (project / "configs").mkdir()
    content = {**yaml_file.read_mapping(write_project(project, **SHORT)), "project": {"path": ".."}}
    (project / "relay.yaml").unlink()
    (project / "configs" / "config.yaml").write_text(yaml_file.dump_yaml(content))
    assert "k=001_size=1.0" in call(project, "relay grid --dry-run --cluster own").stdout
    write_project(project, **SHORT)
    both = call(project, "relay grid --dry-run --cluster own")
    assert "the configuration is relay.yaml; for the other one: --config configs/config.yaml" in both.stderr


def test_a_program_does_not_see_the_code_of_relay(here: Path) -> None:
    """A package called src that is installed for it is its own."""
    installed = here.parent / "site" / "src"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("NAME = 'of the user'\n")
    code = WALK.replace("import relay", "import relay, src; assert src.NAME == 'of the user'; import math")
    project = write_project(here / "mine", code, params={"steps": 10}).parent
    done = call(project, f"PYTHONPATH={here.parent / 'site'} relay train --cluster local")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_checkout_without_its_packages(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "relay", tmp_path / "bin" / "relay")
    done = subprocess.run([tmp_path / "bin" / "relay", "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"to install what Relay needs: make -C {tmp_path} setup\n")


@pytest.mark.parametrize("words", ["grid", "status", "aggregate", "tensorboard"])
def test_a_folder_without_an_experiment_is_told_what_to_do(here: Path, words: str) -> None:
    refused = call(here, f"relay {words}")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"error: {here}: has neither relay.yaml nor configs/config.yaml; ")
    made = call(here, suggested(refused.stderr))
    assert (here / "my_project" / "relay.yaml").is_file(), made.stderr
