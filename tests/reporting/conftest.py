"""One small experiment, run once per session with the commands that a user types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from filelock import FileLock

from relay import hints
from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from src.artifacts import checks_folder
from src.config.loading import load_config
from src.config.schema import Config
from src.report import main
from tests.conftest import SMALL
from tests.fork_server import fork_python

HOSTILE = "<script>alert(1)</script> | `x` **b** [l](h) & \\"


@dataclass(frozen=True)
class Project:
    """An experiment in `folder`: its configuration file, runs and artifacts."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def report_folder(self) -> Path:
        return self.folder / "artifacts" / "report"

    @property
    def checks(self) -> Path:
        return checks_folder(self.config(), str(self.file)) / "checks.json"

    def config(self) -> Config:
        return load_config(self.file)

    def run_of(self, tag: str) -> RunDir:
        """The first run of the sweep whose name begins with `tag`."""
        (sweep,) = (each for each in sweeps(self.folder / "runs") if each.name.startswith(tag))
        return sweep.runs()[0]

    def report(self, language: str = "en") -> tuple[str, str]:
        """The Markdown and the HTML that `src.report` writes."""
        # In this process, which has imported matplotlib and scipy; test_the_command_of_a_user runs the command.
        with mock.patch.object(hints, "_options", ["--config", str(self.file)]):
            main(str(self.file), language)
        texts = (self.report_folder / f"report.{language}.{suffix}" for suffix in ("md", "html"))
        return next(texts).read_text(), next(texts).read_text()


def write_config(folder: Path, data_root: Path) -> None:
    """Write the experiment of the tests, with results in `folder`."""
    content: dict[str, Any] = {
        **SMALL,
        "dataset": {**SMALL["dataset"], "root": str(data_root)},
        "lr_finder": {"num_steps": 10, "seeds": [1, 2]},
        "hparams": {"epochs": 1, "lr": [0.001, 0.01], "num_modules": [1, 2], "tag": "grid"},
        "refine": {"epochs": 1, "lr_factors": [0.75], "weight_decay_factors": [1.0], "tag": "narrow"},
        "compare": {"variants": {"lower_lr": {"set": {"train.optimizer.lr": 0.0005}, "expect": HOSTILE}}},
        "paths": {f"{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")},
    }
    (folder / "small.yaml").write_text(yaml_file.dump_yaml(content))


@pytest.fixture(scope="session")
def project(shared_folder: Path, data_root: Path) -> Project:
    """The whole experiment of a report. Not to be changed: `copied` is."""
    made = Project(shared_folder / "project")
    with FileLock(shared_folder / "project.lock"):
        if not (made.folder / "complete").exists():
            make_project(made, data_root)
            (made.folder / "complete").touch()
    return made


def make_project(made: Project, data_root: Path) -> None:
    """Run every command of an experiment."""
    made.folder.mkdir()
    write_config(made.folder, data_root)
    file = ["--config", str(made.file)]
    # In the process of each command, which has torch already: a worker would import it anew.
    given = [*file, "--here"]
    for words in (
        ["src.checks", *file],
        ["src.lr_finder", *given],
        ["src.grid_search", *given],
        ["src.grid_search", *given, "--refined"],
        ["src.train", *given, "--best"],
        ["src.compare_runs", *given],
    ):
        done = fork_python(*words)
        assert done.returncode == 0, done.stderr
    # Four epochs memorize nothing, which the command reports; the report shows it.
    assert fork_python("src.train", *given, "--overfit_small", "--max_epochs", "4").returncode == 2
    weights = made.run_of("train_").best_file
    assert fork_python("src.evaluate", *given, "--checkpoint", str(weights)).returncode == 0


@pytest.fixture
def empty(tmp_path: Path, data_root: Path) -> Project:
    """A configuration without any run."""
    write_config(tmp_path, data_root)
    return Project(tmp_path)
