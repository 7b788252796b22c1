"""The path of every file in a run or sweep directory; other code takes them from here.

    runs/<sweep>/    sweep.yaml  cells.jsonl  configs.jsonl.gz  submissions.jsonl  code/  project/  jobs/  table.*
                     aggregate.json  seeds.*  effects.*  compare*.*  lr_suggestion.json  figures
        <run>/       config.yaml  provenance.jsonl  attempts.jsonl  metrics.jsonl  events.out.tfevents.*
                     checkpoints/  predictions.npz  result.json  cancelled.json (while a cancel holds)
                     a program's also: work/  order.json  program.jsonl
                     a command's also: params.yaml  logged.jsonl  sources.json
                     an evaluation also: evaluation.json  per_class.csv  confusion.csv  confused_pairs.csv

A run's directory is created once, when the sweep is planned; a job is given its path and never computes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, unique within its sweep."""
        return self.path.name

    @property
    def label(self) -> str:
        """`<sweep>/<run>`, as messages and commands name a run."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def config_file(self) -> Path:
        """The fully resolved configuration: the only input of the run."""
        return self.path / "config.yaml"

    @property
    def provenance_file(self) -> Path:
        """Code, commit, versions, host and device: one line per attempt."""
        return self.path / "provenance.jsonl"

    @property
    def attempts_file(self) -> Path:
        """A line when an attempt starts and one when it ends."""
        return self.path / "attempts.jsonl"

    @property
    def metrics_file(self) -> Path:
        """One line per logged point."""
        return self.path / "metrics.jsonl"

    @property
    def reports_file(self) -> Path:
        """What the process of a program reports to its supervisor, see relay/program/contract.py."""
        return self.path / "program.jsonl"

    @property
    def params_file(self) -> Path:
        """The parameters of a command, for the command."""
        return self.path / "params.yaml"

    @property
    def logged_file(self) -> Path:
        """What a command logs for Relay: $RELAY_METRICS."""
        return self.path / "logged.jsonl"

    @property
    def sources_file(self) -> Path:
        """How far the files that a command logs to were filled when its newest attempt began."""
        return self.path / "sources.json"

    @property
    def is_of_a_command(self) -> bool:
        """Whether a command has been executed in it, which saves as it likes."""
        return self.sources_file.exists()

    @property
    def work(self) -> Path:
        """The current folder of a program, see hpc/node/supervisor.py."""
        return self.path / "work"

    @property
    def checkpoints(self) -> Path:
        """The folder of the saved states and of the best weights."""
        return self.path / "checkpoints"

    @property
    def best_file(self) -> Path:
        """The weights of the best epoch so far."""
        return self.checkpoints / "best.ckpt"

    @property
    def predictions_file(self) -> Path:
        """What the network predicted for each image: of the best epoch on val, or of the evaluated split."""
        return self.path / "predictions.npz"

    @property
    def evaluation_file(self) -> Path:
        """All that an evaluation found, see src/evaluation/summary.py."""
        return self.path / "evaluation.json"

    @property
    def sealed_files(self) -> tuple[Path, ...]:
        """The files that belong to the result, see relay/runs/seal.py; not every kind of run has all of them."""
        return self.metrics_file, self.predictions_file, self.evaluation_file

    @property
    def result_file(self) -> Path:
        """Written last: a run is done once this file is valid."""
        return self.path / "result.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that executes the run: with flock(2), or by its existence on a disk without flock."""
        return self.path / ".run.lock"

    @property
    def owner_file(self) -> Path:
        """The token of the process that executes the run, touched at each of its heartbeats."""
        return self.path / ".owner.json"

    @property
    def cancel_file(self) -> Path:
        """Who cancelled the run, and when. It exists as long as the cancel holds."""
        return self.path / "cancelled.json"

    def figure(self, name: str) -> Path:
        """The figure `name` of the run."""
        return self.path / f"{name}.png"


@dataclass(frozen=True)
class SweepPaths:
    """The paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        """Tag and time stamp: grid_search_20261122-101502."""
        return self.path.name

    @property
    def meta_file(self) -> Path:
        """The request: kind, configuration, profile, code version."""
        return self.path / "sweep.yaml"

    @property
    def cells_file(self) -> Path:
        """The manifest: one line per cell."""
        return self.path / "cells.jsonl"

    @property
    def configs_file(self) -> Path:
        """The config.yaml of every run, compressed, from which a lost one is written again."""
        return self.path / "configs.jsonl.gz"

    @property
    def submissions_file(self) -> Path:
        """Intents to submit, and the job ids with which SLURM answered."""
        return self.path / "submissions.jsonl"

    @property
    def code(self) -> Path:
        """The snapshots of the code that the sweep is executed with, see relay/runs/code_snapshot.py."""
        return self.path / "code"

    @property
    def project(self) -> Path:
        """The snapshots of a user's project, see relay/runs/project_snapshot.py."""
        return self.path / "project"

    @property
    def jobs(self) -> Path:
        """The scripts of its jobs, the runs of each of their tasks, and the jobs' output."""
        return self.path / "jobs"

    def table_file(self, suffix: str) -> Path:
        """The table of results as `csv`, `md` or `parquet`."""
        return self.path / f"table.{suffix}"

    def figure(self, name: str) -> Path:
        """The figure `name` of the sweep."""
        return self.path / f"{name}.png"

    def results_file(self, name: str) -> Path:
        """A file of results beside the tables, such as compare.csv."""
        return self.path / name
