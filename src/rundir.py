"""The run directory, and the only code that knows its file names.

    runs/<sweep>/    sweep.yaml  cells.jsonl  submissions.jsonl  code/  jobs/  table.csv|md|parquet  compare_*.png
        <run>/       config.yaml  provenance.jsonl  attempts.jsonl  metrics.jsonl  events.out.tfevents.*
                     checkpoints/  result.json  cancelled.json (while a cancel holds)

A run's directory is made once, at planning; a job is given the path and never computes one. `result.json` is written
last: a run is done where it exists and is valid, and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src import hints, records, yaml_file
from src.config import Config, make_config
from src.errors import RunError
from src.files import append_lines, last_line, read_json, read_lines, replace_file
from src.ownership import Ownership, heart_beats, hold_lock, is_locked


@dataclass(frozen=True)
class RunDir:
    """One run's directory. `owner` is set in the process that executes the run, and guards what it writes."""

    path: Path
    owner: Ownership | None = field(default=None, compare=False, repr=False)

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
        """Code, commit, versions, host and device: a line for each attempt."""
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
    def checkpoints(self) -> Path:
        """The folder of exact states, and of the best weights."""
        return self.path / "checkpoints"

    @property
    def best_file(self) -> Path:
        """The weights of the best epoch so far."""
        return self.checkpoints / "best.ckpt"

    @property
    def result_file(self) -> Path:
        """Written last."""
        return self.path / "result.json"

    @property
    def claim_file(self) -> Path:
        """Locked by the process that executes the run: with flock(2), or by being there where the disk has no flock."""
        return self.path / ".claim.lock"

    @property
    def owner_file(self) -> Path:
        """The token of the process that executes the run, touched at every heartbeat of it."""
        return self.path / ".owner.json"

    @property
    def cancel_file(self) -> Path:
        """Who cancelled the run, and when; there as long as the cancel holds."""
        return self.path / "cancelled.json"

    def figure(self, name: str) -> Path:
        """Where the run puts the figure `name`."""
        return self.path / f"{name}.png"

    def config(self) -> Config:
        """The run's configuration. Raises RunError where there is none, ConfigError where it is not valid."""
        if not self.config_file.is_file():
            raise RunError(f"{self.path}: not a run directory, there is no {self.config_file.name} in it")
        return make_config(yaml_file.read_mapping(self.config_file), str(self.config_file))

    def sweep(self) -> SweepDir:
        """The sweep that the run belongs to."""
        return SweepDir(self.path.parent)

    def result(self) -> dict[str, Any] | None:
        """What the run came to, or None while it is not done. Raises RunError where the file is damaged."""
        result = read_json(self.result_file, records.RESULT)
        return result if result and result["status"] == "done" else None

    def is_done(self) -> bool:
        """Whether there is a result. Of a damaged one, `damage` tells."""
        try:
            return self.result() is not None
        except RunError:
            return False

    def damage(self) -> str:
        """What in the run's files is not what this program writes, and what to do; "" where all can be read."""
        try:
            if self.result() is None and self.attempts():
                self.last_metrics()
        except RunError as error:
            return str(error)
        return ""

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of the metrics log, in order. Raises RunError where the file is damaged."""
        return read_lines(self.metrics_file, records.METRICS)

    def last_metrics(self) -> dict[str, Any] | None:
        """The newest row of the metrics log. Raises RunError where it is damaged."""
        return last_line(self.metrics_file, records.METRICS)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Declare the run done."""
        replace_file(self.result_file, yaml_file.json_text({"status": "done", **result}), check=self.check_owner)

    def check_owner(self) -> None:
        """Raises TakenOverError where this process executed the run and another one has taken it over."""
        if self.owner:
            self.owner.check()

    @contextlib.contextmanager
    def owned(self) -> Iterator[RunDir]:
        """The run with this process as its owner, its heartbeat going; for whoever holds the claim."""
        with Ownership(self.owner_file, self.label) as owner:
            yield replace(self, owner=owner)

    def cancelled(self) -> bool:
        """Whether its user has cancelled the run, and no command of theirs has asked for it again since."""
        return self.cancel_file.exists()

    def cancel(self) -> None:
        """Make the cancel known to everything that goes on by itself: waiting tasks, requeues, pipelines."""
        # Only whether the file is there counts, so it need not be durable: cancelling 10,000 runs takes a second.
        try:
            self.cancel_file.write_text(yaml_file.json_text({"uid": os.getuid(), "time": round(time.time(), 3)}))
        except FileNotFoundError:
            raise RunError(f"{self.path}: is gone; put it back, or start the same runs anew with --fresh") from None

    def lift_cancel(self) -> None:
        """For the user's own command, which asks for the run again."""
        self.cancel_file.unlink(missing_ok=True)

    def attempts(self) -> list[dict[str, Any]]:
        """The attempts in order, each one's start and end joined; a killed attempt has no `end` until it is closed.

        The first end counts: a process that SLURM had given up may still write its own, after another has closed it.
        Raises RunError where the file is damaged.
        """
        attempts = records.join_attempts(self.attempts_file, read_lines(self.attempts_file, records.ATTEMPT))
        if attempts and "end" not in attempts[-1] and self.result() is not None:
            # Killed after the result was written, which is what counts, and before the attempt was closed.
            attempts[-1] |= {"end": round(self.result_file.stat().st_mtime, 3), "cause": "DONE"}
        return attempts

    def record_attempt(self, attempt: int, **facts: Any) -> None:
        """Append what is known of an attempt now."""
        append_lines(self.attempts_file, [{"attempt": attempt, **facts}], check=self.check_owner)

    def claim(self, wait_s: float = 0) -> contextlib.AbstractContextManager[None]:
        """Hold the run for this process; it is free again when the process ends, however it ends.

        Raises RunError where another process holds it for longer than `wait_s` seconds.
        """
        return hold_lock(self.claim_file, self.label, wait_s)

    def claimed(self) -> bool:
        """Whether a process holds the run now, for whoever would take it."""
        locked = is_locked(self.claim_file)
        if locked is not None:
            return locked
        try:
            with self.claim():
                return False
        except RunError:
            return True

    def alive(self) -> bool:
        """Whether a process executes the run now, for whoever only looks and may not be allowed to write."""
        locked = is_locked(self.claim_file)
        return heart_beats(self.owner_file) if locked is None else locked


@functools.lru_cache(maxsize=64)
def _read_meta(path: Path, identity: tuple[int, int, int]) -> dict[str, Any]:
    # A grid of thousands of values takes seconds to read, and one command asks for it many times.
    return records.META.check(path, yaml_file.read_mapping(path))


@dataclass(frozen=True)
class SweepDir:
    """The runs that were asked for together."""

    path: Path

    @property
    def name(self) -> str:
        """Tag and time stamp: grid_search_20261122-101502."""
        return self.path.name

    @property
    def meta_file(self) -> Path:
        """What was asked."""
        return self.path / "sweep.yaml"

    @property
    def cells_file(self) -> Path:
        """One line a cell."""
        return self.path / "cells.jsonl"

    @property
    def submissions_file(self) -> Path:
        """Intents to submit, and the job ids that answered them."""
        return self.path / "submissions.jsonl"

    @property
    def code(self) -> Path:
        """The code that the sweep is executed with, see src/code_snapshot.py."""
        return self.path / "code"

    @property
    def jobs(self) -> Path:
        """What its jobs read when they start (submitit's files), and what they print."""
        return self.path / "jobs"

    def table_file(self, suffix: str) -> Path:
        """The table of results as `csv`, `md` or `parquet`."""
        return self.path / f"table.{suffix}"

    def figure(self, name: str) -> Path:
        """Where the figure `name` of the sweep goes."""
        return self.path / f"{name}.png"

    def meta(self) -> dict[str, Any]:
        """The content of sweep.yaml: kind, key, tag, created, cells, code, snapshot, config.

        Raises RunError where there is none or it is damaged, ConfigError where it is not YAML.
        """
        if not self.meta_file.is_file():
            raise RunError(f"{self.path}: not a sweep directory, there is no {self.meta_file.name} in it")
        facts = self.meta_file.stat()
        return _read_meta(self.meta_file, (facts.st_ino, facts.st_mtime_ns, facts.st_size))

    @property
    def kind(self) -> str:
        """`train`, `lr_sweep`, `grid` or `evaluate`."""
        return str(self.meta()["kind"])

    def cells(self) -> list[dict[str, Any]]:
        """index, name, key and overrides of every cell, in order; `data`, the digest of its images, where it is known.

        Raises RunError where a line is damaged, or they are not as many different ones as sweep.yaml says.
        """
        found, expected = read_lines(self.cells_file, records.CELL), self.meta().get("cells")
        count = len(found) if expected is None else expected
        different = {cell["index"]: cell for cell in found}
        names = {cell["name"] for cell in different.values()}
        if not len(found) == len(names) == count or different.keys() != set(range(count)):
            raise RunError(
                f"{self.cells_file}: {len(found)} whole lines, of {len(names)} different cells, where "
                f"{self.meta_file.name} says {count}: it was cut or damaged; put it back as it was, or start the same "
                f"runs anew: {hints.again('--fresh', kept=self.meta())}"
            )
        return [different[index] for index in range(count)]

    def runs(self) -> list[RunDir]:
        """The run of every cell, in order."""
        return [self.run(cell["name"]) for cell in self.cells()]

    def run(self, name: str) -> RunDir:
        """The run of this name."""
        return RunDir(self.path / name)
