"""Manifest and run directories -> rows -> tables and figures. An unknown value is empty, never zero."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.loading import make_config
from src.config.schema import Select
from src.errors import RunError
from src.files import replace_file
from src.log import log
from src.results.terminal import print_rows, show_value
from src.runs.hparams import axis_name, axis_value
from src.runs.kinds import kind_of
from src.runs.rundir import RunDir, SweepDir

Row = dict[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The results of a sweep, or of another program's logs: one row for every run, in order, finished or not.

    `axes`: the columns of the hyperparameters that differ between the rows. `select`: the metric by which rows are
    ranked. A row has `index`, `run` and `state`, the axes, the metrics, and what else is known about the run.
    """

    name: str
    rows: Sequence[Row]
    axes: Sequence[str]
    select: Select

    def best(self) -> Row | None:
        """The finished row with the best value of the selecting metric; among equals, the lowest val/loss, then the
        first.

        A run that diverged, or in which one of the two is not a finite number, is never the best.
        """
        best = min(self.rows, key=self._rank, default=None)
        return best if best is not None and self.is_comparable(best) else None

    def ranked(self) -> list[Row]:
        """The rows, best first. Rows that diverged or have no measurement come last, in order."""
        return sorted(self.rows, key=self._rank)

    def is_comparable(self, row: Row) -> bool:
        """Whether the run is done with a finite loss and selecting metric on val."""
        measured = (row.get(self.select.column), row.get("val/loss"))
        return row["state"] != "diverged" and all(value is not None and math.isfinite(value) for value in measured)

    def _rank(self, row: Row) -> tuple[bool, float, float, int]:
        if not self.is_comparable(row):
            return True, 0.0, 0.0, row["index"]
        return False, -self.select.score(row[self.select.column]), row["val/loss"], row["index"]


def read_table(sweep: SweepDir) -> Table:
    """The results of a sweep. Damaged runs add a column `error`."""
    cells = sweep.cells()
    axes = _axes(cells)
    # Only this section is validated, so that sweeps of earlier versions, with other keys, can still be shown.
    metrics = make_config({"metrics": sweep.meta()["config"].get("metrics")}, str(sweep.meta_file)).metrics
    columns = functools.partial(kind_of(sweep.kind, sweep.path).columns, metrics)
    rows = [_row(sweep.run(cell["name"]), cell, axes, columns) for cell in cells]
    if any("error" in row for row in rows):
        rows = [{**row, "error": row.get("error")} for row in rows]
    return Table(sweep.name, rows, [axis_name(path) for path in axes], metrics.select)


def _axes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The key paths whose values differ between the cells; for a single cell, all its overrides."""
    paths = dict.fromkeys(path for cell in cells for path in cell["overrides"])
    if len(cells) == 1:
        return list(paths)
    # Compared as text, because a value may be a list, which a set cannot hold.
    return [path for path in paths if len({str(cell["overrides"].get(path)) for cell in cells}) > 1]


def _row(run: RunDir, cell: Mapping[str, Any], axes: Sequence[str], columns: Callable[[Result], Row]) -> Row:
    result, attempts, damage = None, [], ""
    try:
        result, attempts = run.result(), run.attempts()
        state = state_of_run(run, result, attempts)
    except RunError as error:
        result, attempts, state, damage = None, [], "damaged", str(error)
    row: Row = {"index": cell["index"], "run": run.name, "state": state}
    row |= {axis_name(path): axis_value(cell["overrides"].get(path)) for path in axes}
    row |= columns(result or {})
    row["attempts"] = None if damage else len(attempts)
    row["interruptions"] = " ".join(str(a["cause"]) for a in attempts if a.get("cause") not in (None, "DONE"))
    return {**row, "error": damage} if damage else row


def state_of_run(run: RunDir, result: Mapping[str, Any] | None, attempts: Sequence[Mapping[str, Any]]) -> str:
    """`done`, `diverged`, `running`, `cancelled`, `new`, or the cause of the last attempt's end, in lower case."""
    if result:
        # Earlier versions recorded a run as completed even if its last val loss was not finite.
        lost = "best" in result and "loss" not in (result["best"] or {"loss": 0})
        return "diverged" if result.get("outcome") == "diverged" or lost else "done"
    if attempts and "end" not in attempts[-1] and run.alive():
        return "running"
    if run.cancelled():
        return "cancelled"
    if not attempts:
        return "new"
    # No end record, and no process holds the run.
    if "end" not in attempts[-1]:
        return "killed"
    return str(attempts[-1]["cause"]).lower()


def write_tables(sweep: SweepDir, table: Table) -> list[Path]:
    """Write table.csv, table.md and table.parquet of the sweep, with every cell, best first."""
    import pandas as pd

    frame = pd.DataFrame(table.ranked())
    for name in frame:
        # A parquet column has one type. An axis may mix types, or hold integers of more than 64 bits: write them as
        # text.
        kinds = {type(value) for value in frame[name] if frame[name].dtype == "object" and not _is_missing(value)}
        if len(kinds) > 1 or kinds & {int, dict, list}:
            frame[name] = frame[name].map(show_value, na_action="ignore")
    # All formats are written to memory first, so that each file is replaced atomically.
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    shown = frame.drop(columns="index").astype(object).where(frame.drop(columns="index").notna(), "")
    contents: dict[str, bytes | str] = {
        "csv": frame.to_csv(index=False),
        # tabulate would parse texts such as 1e-05 as numbers and format them in its own way.
        "md": shown.map(show_value).to_markdown(index=False, disable_numparse=True) + "\n",
        "parquet": parquet.getvalue(),
    }
    for suffix, content in contents.items():
        replace_file(sweep.table_file(suffix), content)
    return [sweep.table_file(suffix) for suffix in contents]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def print_table(table: Table) -> None:
    """Print the rows, best first, without the columns that only the files need."""
    hidden = {"index", "steps", "train_s", "train/accuracy", "interruptions"}
    print_rows(
        [{name: value for name, value in row.items() if name not in hidden} for row in table.ranked()], table.name
    )


def curve_of(run: RunDir, name: str) -> tuple[list[float], list[float]]:
    """The epochs and values of the metric `name` in a run's log."""
    points = [(row["epoch"], row[name]) for row in run.metrics() if row.get(name) is not None]
    return [x for x, _ in points], [y for _, y in points]


def draw_sweep(sweep: SweepDir, table: Table, path: Path) -> Path | None:
    """Draw the selecting metric over the epochs for every run that has it. Returns None if no run has."""
    from src.results.figures import Curve, draw_curves

    best = table.best()
    curves = []
    for row in table.ranked():
        try:
            x, y = curve_of(sweep.run(str(row["run"])), table.select.column)
        except RunError as error:
            log.warning(f"not in the figure: {error}")
            continue
        if x:
            label = f"{row['run']} (best)" if best and row["run"] == best["run"] else str(row["run"])
            curves.append(Curve(label, x, y, faint=len(table.rows) > 8 and not label.endswith("(best)")))
    if not curves:
        return None
    return draw_curves(path, curves, "epoch", table.select.column, title=sweep.name)


def collect(sweep: SweepDir, artifacts: Path) -> Table:
    """Write the tables and the figure of a sweep, print the table, and return it."""
    table = read_table(sweep)
    files = write_tables(sweep, table)
    print_table(table)
    best = table.best()
    if best:
        columns = dict.fromkeys((table.select.column, "val/loss"))
        print(f"best: {best['run']}  " + "  ".join(f"{name} {best[name]:.4f}" for name in columns))
    figure = draw_sweep(sweep, table, artifacts / f"{sweep.name}.png")
    for path in (*files, *([figure] if figure else [])):
        print(f"wrote {path}")
    return table
