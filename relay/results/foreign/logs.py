"""The table of another program's TensorBoard logs: one row for each run."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.program.values import TABLE_COLUMNS
from relay.results.foreign.axes import axes_of
from relay.results.foreign.metric import metric_of
from relay.results.foreign.runs import ForeignRun, Series, read_runs
from relay.results.tables.ranking import Direction, Ranking, ranking_of, words_of
from relay.results.tables.table import Row, Table
from relay.runs.cells import axis_key
from relay.text import counted, shortlist


@dataclass(frozen=True)
class ForeignLogs:
    """The table; `curves`: the steps and values of the metric, by run; `notes`: how the runs are ranked, what was
    changed or excluded, and what could not be read.
    """

    table: Table
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    notes: Sequence[str]


def read_foreign(directory: Path, metric: str | None = None, direction: Direction | None = None) -> ForeignLogs:
    """Read all event files below `directory`.

    A row has `index`, `run` (the path below `directory`), `state`, the hyperparameters that vary, a value of each tag,
    and `best_step`, where the metric was best. The values are those at that step; a column whose tag was not logged
    there by all runs has the last values, and is marked: `train/loss (last)`.

    The state is `logged` (logs do not say whether a run was finished); `diverged` if the last value of a loss is not
    finite; `partial` if the run has no value of an axis; or `rerun`, if another run with the same hyperparameters and
    seed went further, or as far and later: such runs are restarts, and no repetitions. Only rows that are `logged` are
    compared.

    Hyperparameters are those of the HParams summaries, those logged as a text, or those in hparams.yaml; for a run
    without, those in its name. Raises RunError if there are no event files, or the metric is not clear.
    """
    runs, damages = read_runs(directory)
    tag, direction, sentence = metric_of(directory, runs, metric, direction)
    axes = axes_of(list(runs.values()))
    best = {name: _best(run.scalars.get(tag), Ranking(tag, direction)) for name, run in runs.items()}
    columns = _columns(runs, best, tag, list(axes.values))
    rows, curves = [], {}
    for index, (name, run) in enumerate(runs.items()):
        hparams = {axis: values[index] for axis, values in axes.values.items()}
        row = {"index": index, "run": name, "state": "logged", **hparams, **_measured(run, best[name], columns)}
        rows.append({**row, "best_step": best[name]})
        curves[name] = run.scalars.get(tag, ([], []))
    notes = [sentence, *axes.notes, *_with_states(rows, runs, list(axes.values), tag), *damages]
    if len(rows) > 1 and not axes.values:
        notes.append(
            "no hyperparameter that differs between the runs was logged, so nothing can be said about hyperparameters"
        )
    ranking = ranking_of(columns[tag], direction, (value for run in runs.values() for value in _values(run, tag)))
    return ForeignLogs(Table(directory.resolve().name, rows, list(axes.values), ranking), curves, notes)


def _values(run: ForeignRun, tag: str) -> list[float]:
    return [value for value in run.scalars.get(tag, ((), ()))[1] if math.isfinite(value)]


def _best(series: Series | None, ranking: Ranking) -> int | None:
    """The step at which the metric was best; None if it never was a number."""
    points = [(step, value) for step, value in zip(*(series or ((), ())), strict=True) if math.isfinite(value)]
    return max(points, key=lambda point: ranking.score(point[1]))[0] if points else None


def _columns(
    runs: Mapping[str, ForeignRun], best: Mapping[str, int | None], tag: str, axes: list[str]
) -> dict[str, str]:
    """The column of each tag, in order."""
    taken, columns = {*axes, *TABLE_COLUMNS}, {}
    for each in {each for run in runs.values() for each in run.scalars}:
        logged = [
            _has_step(run.scalars[each][0], best[name], run.scalars[tag][0])
            for name, run in runs.items()
            if each in run.scalars and tag in run.scalars
        ]
        column = each if each == tag or (logged and all(logged)) else f"{each} (last)"
        columns[each] = f"{column} (logged)" if column in taken else column
    return dict(sorted(columns.items(), key=lambda item: item[1]))


def _has_step(steps: Sequence[int], best: int | None, ranked: Sequence[int]) -> bool:
    """Whether a tag was logged at the best step.

    Some programs count epochs for one tag and steps for another one, which then goes much further.
    """
    return best is None or (_place(steps, best) is not None and steps[-1] <= 2 * max(1, ranked[-1]))


def _place(steps: Sequence[int], step: int) -> int | None:
    """Where a step is among ascending ones."""
    place = bisect_left(steps, step)
    return place if place < len(steps) and steps[place] == step else None


def _measured(run: ForeignRun, best: int | None, columns: Mapping[str, str]) -> Row:
    row: Row = {}
    for tag, column in columns.items():
        steps, values = run.scalars.get(tag, ((), ()))
        value = math.nan
        if values and column.startswith(f"{tag} (last)"):
            value = values[-1]
        elif best is not None and (place := _place(steps, best)) is not None:
            value = values[place]
        # float32 on disk: 0.2973 is stored as 0.29730001091957.
        row[column] = float(f"{value:.7g}") if math.isfinite(value) else None
    return row


def _with_states(rows: list[Row], runs: Mapping[str, ForeignRun], axes: list[str], tag: str) -> list[str]:
    """Set the states of the rows, and say which are not `logged`."""
    notes = []
    for row in rows:
        if any(row[axis] is None for axis in axes):
            row["state"] = "partial"
        elif any(_is_lost(series) for each, series in runs[row["run"]].scalars.items() if _is_loss(each)):
            row["state"] = "diverged"
    for row in _reruns(
        [row for row in rows if row["state"] == "logged" and row["best_step"] is not None], runs, axes, tag
    ):
        row["state"] = "rerun"
    for state, what in {
        "diverged": "diverged: the last value of a loss is not finite",
        "partial": f"lacks a value of an axis ({', '.join(axes)}), and is excluded from all statements",
        "rerun": "repeats the hyperparameters of another one, and is excluded from all statements: without a seed that "
        "differs, a restart cannot be told from a repetition; the run that went furthest, then the latest one counts",
    }.items():
        names = [str(row["run"]) for row in rows if row["state"] == state]
        if names:
            notes.append(f"{counted(len(names), 'run')} with state {state} ({shortlist(names)}): it {what}")
    return notes


def _is_loss(tag: str) -> bool:
    return any(word.endswith("loss") for word in words_of(tag))


def _is_lost(series: Series) -> bool:
    return not math.isfinite(series[1][-1])


def _reruns(rows: list[Row], runs: Mapping[str, ForeignRun], axes: list[str], tag: str) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(axis_key(row[axis]) for axis in axes), []).append(row)

    def reached(row: Row) -> tuple[int, int, int]:
        run = runs[row["run"]]
        return run.scalars[tag][0][-1], run.started, row["index"]

    # Without an axis, nothing says that the runs are the same.
    return [row for group in groups.values() if axes for row in sorted(group, key=reached)[:-1]]
