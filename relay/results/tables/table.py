"""Manifest and run directories -> rows: one for every run, whatever its state. An unknown value is None, never zero."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.errors import RunError
from relay.results.tables.ranking import Ranking, ranking_of
from relay.runs.attempt import Attempts, causes_of
from relay.runs.cells import SEED_AXIS, PlannedRun, axis_key, axis_value, varying_paths
from relay.runs.environment import Environment, EnvironmentMark, environment_marks, environments_of
from relay.runs.lifecycle import reached_step, state_of_run
from relay.runs.rundir import RunDir, SweepDir

Row = dict[str, Any]
Setting = tuple[Hashable, ...]
# The last two are those of other programs' logs, see relay/results/foreign/logs.py.
_NOT_COMPARED = ("diverged", "partial", "rerun")


@dataclass(frozen=True)
class Table:
    """The results of a sweep, or of another program's logs: one row for every run, in order, finished or not.

    `axes`: the columns of the hyperparameters that differ between the rows. `select`: the metric by which rows are
    ranked. `unit`: what the curves of the runs count, `epoch` or `step`. A row has `index`, `run` and `state`, the
    axes, the metrics, and what else is known about the run.
    """

    name: str
    rows: Sequence[Row]
    axes: Sequence[str]
    select: Ranking
    unit: str = "epoch"

    def best(self) -> Row | None:
        """The first of `ranked`; None if it is not comparable."""
        best = next(iter(self.ranked), None)
        return best if best is not None and self.is_comparable(best) else None

    @functools.cached_property
    def ranked(self) -> Sequence[Row]:
        """The rows, best first: by the mean of the selecting metric over the seeds of their setting, then by their own
        value, then by the lower val/loss, then in order.

        Rows that diverged or have no measurement come last, in order.
        """
        column = self.select.column
        means = {
            setting: sum(row[column] for row in rows) / len(rows) for setting, rows in self.comparable_rows().items()
        }

        def rank(row: Row) -> tuple[bool, float, float, float, int]:
            if not self.is_comparable(row):
                return True, 0.0, 0.0, 0.0, row["index"]
            loss = row.get("val/loss")
            scores = (-self.select.score(value) for value in (means[self.setting(row)], row[column]))
            return False, *scores, math.inf if loss is None else loss, row["index"]

        return sorted(self.rows, key=rank)

    def setting(self, row: Row) -> Setting:
        """The values of the axes except the seed. Rows with equal settings are repetitions of one experiment. Without
        an axis, nothing says that: each run is a setting of its own.
        """
        if not self.axes:
            return (row["index"],)
        return tuple(axis_key(row.get(axis)) for axis in self.axes if axis != SEED_AXIS)

    def comparable_rows(self) -> dict[Setting, list[Row]]:
        """The comparable rows of each setting that has one, both in the order of the rows."""
        found: dict[Setting, list[Row]] = {}
        for row in self.rows:
            if self.is_comparable(row):
                found.setdefault(self.setting(row), []).append(row)
        return found

    def is_comparable(self, row: Row) -> bool:
        """Whether the run is done with a finite selecting metric and, where it has one, a finite loss on val.

        Of other programs' logs, where not every run has logged the same, only rows that are `logged` are compared.
        """
        value, loss = row.get(self.select.column), row.get("val/loss", 0.0) if row["state"] != "logged" else 0.0
        finite = all(each is not None and math.isfinite(each) for each in (value, loss))
        return finite and row["state"] not in _NOT_COMPARED


def read_table(sweep: SweepDir) -> Table:
    """The results of a sweep, whatever the state of its runs. The columns are those that the results of its runs have,
    and `steps` is how far a run is.

    Damaged runs, and attempts that ended with an error, add a column `error`. Runs that were resumed in another
    environment, or were computed in another one than most of the sweep, add a column `environment`.
    """
    cells = sweep.cells()
    # A single cell shows all its overrides.
    axes = varying_paths(cells) if len(cells) > 1 else list(cells[0].overrides)
    select = sweep.meta()["select"]
    column = select["column"]
    runs = [_read(sweep.run(cell.name), cell, axes) for cell in cells]
    columns = dict.fromkeys(name for run in runs for name in run.columns) or {column: None}
    if any(run.reached for run in runs):
        columns.setdefault("steps")
    rows = [_row(run, columns) for run in runs]
    marks = environment_marks({run.head["run"]: run.environments for run in runs})
    if any("error" in row for row in rows):
        rows = [{**row, "error": row.get("error")} for row in rows]
    if marks:
        rows = [{**row, "environment": _shown(marks.get(row["run"]))} for row in rows]
    ranking = ranking_of(column, select["direction"], (row.get(column) for row in rows))
    return Table(sweep.name, rows, [sweep.axis_name(path) for path in axes], ranking, _unit_of(sweep.runs()))


def _unit_of(runs: Iterable[RunDir]) -> str:
    """What the first run that has logged something counts."""
    for run in runs:
        with contextlib.suppress(RunError):
            if row := run.last_metrics():
                return "epoch" if "epoch" in row else "step"
    return "epoch"


@dataclass(frozen=True)
class _Read:
    """What a run's row is made of. `columns`: those of its result. `reached`: the step that an unfinished one is at."""

    head: Row
    columns: Mapping[str, Any]
    reached: int | None
    tail: Row
    environments: Sequence[Environment]


def _read(run: RunDir, cell: PlannedRun, axes: Sequence[str]) -> _Read:
    attempts: Attempts = ()
    result, reached, error = None, None, ""
    try:
        result, attempts = run.result(), run.attempts()
        state = state_of_run(run, result, attempts)
        run.check_files()
        if attempts and not result:
            reached, error = reached_step(run), attempts[-1].error or ""
    except RunError as damage:
        result, attempts, state, error = None, (), "damaged", str(damage)
    head: Row = {"index": cell.index, "run": run.name, "state": state}
    own = {run.sweep().axis_name(path): axis_value(cell.overrides.get(path)) for path in axes}
    head |= own
    # A program may log what is an axis, such as its rate.
    columns = {
        f"{name} (logged)" if name in own else name: each for name, each in (result or {}).get("columns", {}).items()
    }
    tail: Row = {"attempts": None if state == "damaged" else len(attempts)}
    tail["interruptions"] = " ".join(causes_of(attempts))
    if error:
        tail["error"] = " ".join(error.split())
    return _Read(head, columns, reached, tail, environments_of(result, attempts))


def _row(run: _Read, columns: Iterable[str]) -> Row:
    own = run.columns or {"steps": run.reached or None}
    row = {**run.head, **{name: own.get(name) for name in columns}, **run.tail}
    # A value that is not finite says nothing, and JSON has none.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _shown(mark: EnvironmentMark | None) -> str | None:
    return str(mark) if mark else None


def curve_of(run: RunDir, name: str) -> tuple[list[float], list[float]]:
    """The epochs, or the steps of a run that counts no epochs, and the values of the metric `name` in a run's log."""
    points = [(row.get("epoch", row["step"]), row[name]) for row in run.metrics() if row.get(name) is not None]
    return [x for x, _ in points], [y for _, y in points]


@dataclass(frozen=True)
class SettingResults:
    """The comparable runs of one setting, in the order of the seeds, and the selecting metric of each."""

    rows: Sequence[Row]
    values: Sequence[float]

    @property
    def name(self) -> str:
        """The name of its first run."""
        return str(self.rows[0]["run"])

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The standard deviation between the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def settings_of(table: Table) -> list[SettingResults]:
    """The settings with a comparable run, the best mean first."""
    ranked = {table.setting(row): None for row in table.ranked if table.is_comparable(row)}
    rows = table.comparable_rows()
    return [SettingResults(rows[key], [row[table.select.column] for row in rows[key]]) for key in ranked]
