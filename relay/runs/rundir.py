"""Run and sweep directories: reads their files, and writes the few that change the state of a run.

relay/runs/layout.py names the files, relay/runs/records.py has their schemas. A run is done if and only if its
result.json is valid.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from relay import hints
from relay.config import yaml_file
from relay.errors import RunError
from relay.files import append_lines, last_line, read_lines, replace_file
from relay.runs import records
from relay.runs.attempt import Attempt, join_lines, unfinished_attempt
from relay.runs.cells import PlannedRun
from relay.runs.layout import RunPaths, SweepPaths
from relay.runs.ownership import Ownership, heart_beats, hold_lock, is_locked
from relay.runs.predictions import Predictions, read_predictions
from relay.runs.seal import check_content, read_sealed, sealed_text

# Inode, time and size of a file.
_Identity = tuple[int, int, int] | None
_CELL_FIELDS = {field.name for field in fields(PlannedRun)}


@dataclass(frozen=True)
class RunDir(RunPaths):
    """The directory of one run. `owner` is set only in the process that executes the run, and guards its writes."""

    owner: Ownership | None = field(default=None, compare=False, repr=False)

    def config(self) -> dict[str, Any]:
        """The run's configuration as plain values. Raises RunError if there is none and its copy
        in the sweep is gone, too, ConfigError if it is not YAML."""
        if self.config_file.is_file():
            return yaml_file.read_mapping(self.config_file)
        planned = self.sweep().planned_text(self.name)
        if planned is None:
            raise RunError(f"{self.path}: not a run directory, there is no {self.config_file.name} in it")
        content: dict[str, Any] = yaml_file.parse_yaml(planned, str(self.sweep().configs_file))
        return content

    def sweep(self) -> SweepDir:
        """The sweep that the run belongs to."""
        return SweepDir(self.path.parent)

    def result(self) -> dict[str, Any] | None:
        """The run's result; None while it is not done. Raises RunError if the file is damaged or was edited."""
        return self._sealed()[0]

    def _sealed(self) -> tuple[dict[str, Any] | None, Mapping[str, str]]:
        result, seal = read_sealed(self.result_file) or (None, {})
        return (result, seal) if result and result["status"] == "done" else (None, {})

    def check_files(self, *only: Path) -> None:
        """Raise RunError if the run is done and a file that belongs to its result was damaged or replaced since.

        `only`: the files to look at, if not all of them.
        """
        seal = self._sealed()[1]
        for path in only or self.sealed_files:
            if seal and path.is_file():
                check_content(path, path.read_bytes(), seal)

    def is_done(self) -> bool:
        """Whether there is a valid result. A damaged one does not count; `damage` describes it."""
        try:
            return self.result() is not None
        except RunError:
            return False

    def damage(self) -> str:
        """What is damaged in the run's files, and what to do; "" if all of them can be read."""
        # The other files are needed to resume, so only as long as there is no valid result.
        try:
            if self.result() is None and self.attempts():
                self.last_metrics()
        except RunError as error:
            return str(error)
        return ""

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of the metrics log, in order. Raises RunError if it is damaged, or not the one of the result."""
        rows = read_lines(self.metrics_file, records.METRICS)
        self.check_files(self.metrics_file)
        if any(after["step"] < before["step"] for before, after in itertools.pairwise(rows)):
            raise RunError(f"{self.metrics_file}: its steps decrease; {records.METRICS.advice}")
        return rows

    def predictions(self) -> Predictions | None:
        """What the best epoch predicted for each image of val, or an evaluated network for its split; None if there is
        no file. Raises RunError if it is damaged, or not the one of the result.
        """
        self.check_files(self.predictions_file)
        return read_predictions(self.predictions_file)

    def last_metrics(self) -> dict[str, Any] | None:
        """The last row of the metrics log. Raises RunError if it is damaged."""
        return last_line(self.metrics_file, records.METRICS)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, which makes the run done. The files that belong to it are complete."""
        content = sealed_text({"status": "done", **result}, self.sealed_files)
        replace_file(self.result_file, content, check=self.check_owner)

    def check_owner(self) -> None:
        """Raises TakenOverError if this process executes the run and another one has taken it over."""
        if self.owner:
            self.owner.check()

    @contextlib.contextmanager
    def owned(self, lock: int | None = None) -> Iterator[RunDir]:
        """The run with this process as its owner and a running heartbeat. The caller holds the run lock, whose
        descriptor is `lock`.
        """
        with Ownership(self.owner_file, self.label, self.cancelled, lock) as owner:
            yield replace(self, owner=owner)

    def cancelled(self) -> bool:
        """Whether the user has cancelled the run and not asked for it again since."""
        return self.cancel_file.exists()

    def cancel(self) -> None:
        """Record the cancel, for everything that acts without the user: queued tasks, requeues, pipelines, and the
        process that executes the run, on whatever host.
        """
        # The directory may have been deleted, and a task of the run still wait.
        self.path.mkdir(exist_ok=True)
        # Only its existence counts, so no fsync: cancelling 10,000 runs takes one second.
        self.cancel_file.write_text(yaml_file.json_text({"uid": os.getuid(), "time": round(time.time(), 3)}))

    def lift_cancel(self) -> None:
        """Forget the cancel, because the user has asked for the run again."""
        self.cancel_file.unlink(missing_ok=True)

    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts in order. The file is parsed again only if it has changed.

        Raises RunError if it is damaged.
        """
        identity = _identity(self.attempts_file)
        attempts = _read_attempts(self.attempts_file, identity) if identity else ()
        if unfinished_attempt(attempts) and self.result() is not None:
            # Killed between writing the result and closing the attempt. The result counts.
            end = round(self.result_file.stat().st_mtime, 3)
            return (*attempts[:-1], replace(attempts[-1], end=end, cause="DONE"))
        return attempts

    def record_attempt(self, number: int, **facts: Any) -> None:
        """Append facts about an attempt, by the names of the fields of `Attempt`."""
        append_lines(self.attempts_file, [{"attempt": number, **facts}], check=self.check_owner)

    def lock(self, wait_s: float = 0) -> contextlib.AbstractContextManager[int | None]:
        """Hold the run lock, and get its descriptor. It is released when this process ends, however it ends, and every
        process that has inherited the descriptor.

        Raises RunError if another process still holds it after `wait_s` seconds.
        """
        return hold_lock(self.lock_file, self.label, wait_s)

    def is_locked_now(self) -> bool:
        """Whether a process holds the run lock now. For callers that want to take it and may write."""
        locked = is_locked(self.lock_file)
        if locked is not None:
            return locked
        # flock(2) cannot tell on this disk, but taking the lock does.
        try:
            with self.lock():
                return False
        except RunError:
            return True

    def alive(self) -> bool:
        """Whether a process executes the run now. For readers, who may not be allowed to write."""
        locked = is_locked(self.lock_file)
        return heart_beats(self.owner_file) if locked is None else locked


def _identity(path: Path) -> _Identity:
    """Different for different contents of a file; None if there is no file."""
    try:
        # Opened first, because NFS attribute caching can return the size of an earlier content.
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


@functools.lru_cache(maxsize=4096)
def _read_attempts(path: Path, identity: _Identity) -> tuple[Attempt, ...]:
    # A command asks for the attempts of each run several times.
    return join_lines(path, read_lines(path, records.ATTEMPT))


@functools.lru_cache(maxsize=64)
def _read_cells(path: Path, identity: _Identity) -> tuple[PlannedRun, ...]:
    # A command asks for the cells of each sweep several times, and a grid may have 10,000.
    lines = read_lines(path, records.CELL)
    runs = (PlannedRun(**{name: line[name] for name in _CELL_FIELDS & line.keys()}) for line in lines)
    return tuple(sorted(runs, key=lambda run: run.index))


@functools.lru_cache(maxsize=64)
def _read_meta(path: Path, identity: _Identity) -> dict[str, Any]:
    # Parsing the sweep.yaml of a grid with thousands of values takes seconds, and one command reads it many times.
    return records.META.check(path, yaml_file.read_mapping(path))


@dataclass(frozen=True)
class SweepDir(SweepPaths):
    """The directory of a sweep: runs that were requested together."""

    def meta(self) -> dict[str, Any]:
        """The content of sweep.yaml: kind, key, tag, number, created, cells, code, snapshot, config.

        Raises RunError if it is missing or damaged, ConfigError if it is not YAML.
        """
        if not self.meta_file.is_file():
            raise RunError(f"{self.path}: not a sweep directory, there is no {self.meta_file.name} in it")
        # replace_file gives a changed file a new inode, so the cache never returns an old content.
        facts = self.meta_file.stat()
        return _read_meta(self.meta_file, (facts.st_ino, facts.st_mtime_ns, facts.st_size))

    @property
    def kind(self) -> str:
        """The name of its work, see relay/work.py."""
        return str(self.meta()["kind"])

    def axis_name(self, path: str) -> str:
        """What tables and figures call a key path of the cells' overrides."""
        names: dict[str, str] = self.meta()["axis_names"]
        return names.get(path, path)

    def cells(self) -> tuple[PlannedRun, ...]:
        """Its cells, in order. The file is parsed again only if it has changed.

        Raises RunError if a line is damaged, or if the number of distinct cells is not the one in sweep.yaml.
        """
        cells, expected = _read_cells(self.cells_file, _identity(self.cells_file)), self.meta().get("cells")
        count, names = len(cells) if expected is None else expected, {cell.name for cell in cells}
        # A lost or repeated line would drop runs from the table, or run one of them twice.
        if len(names) != count or [cell.index for cell in cells] != list(range(count)):
            raise RunError(
                f"{self.cells_file}: {len(cells)} complete lines for {len(names)} different cells, but "
                f"{self.meta_file.name} says {count}: the file was truncated or damaged; restore it, or start the same "
                f"runs over: {hints.again('--fresh', saved=self.meta())}"
            )
        return cells

    def planned_text(self, run: str) -> str | None:
        """The text of config.yaml that a run was planned with; None if it is no longer known."""
        try:
            planned = [json.loads(line) for line in gzip.decompress(self.configs_file.read_bytes()).splitlines()]
            return next((str(each["config"]) for each in planned if each["name"] == run), None)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
            return None

    def runs(self) -> list[RunDir]:
        """The run of each cell, in order."""
        return [self.run(cell.name) for cell in self.cells()]

    def run(self, name: str) -> RunDir:
        """The run with this name."""
        return RunDir(self.path / name)
