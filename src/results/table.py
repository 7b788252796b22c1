"""Manifest and run directories -> rows -> tables and figures. What is not known is empty, never zero."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.config.loading import make_config
from src.errors import RunError
from src.files import replace_file
from src.log import log
from src.results.terminal import print_rows, show_value
from src.runs.hparams import axis_name, axis_value
from src.runs.kinds import kind_of
from src.runs.rundir import RunDir, SweepDir

Row = dict[str, Any]
Result = Mapping[str, Any]


def read_rows(sweep: SweepDir) -> list[Row]:
    """One row for every cell of the manifest, in order, finished or not; a column more where a run is damaged."""
    cells = sweep.cells()
    axes = _axes(cells)
    # Only this section: tables stay readable where an earlier version's configuration no longer is.
    metrics = make_config({"metrics": sweep.meta()["config"].get("metrics")}, str(sweep.meta_file)).metrics
    columns = functools.partial(kind_of(sweep.kind, sweep.path).columns, metrics)
    rows = [_row(sweep.run(cell["name"]), cell, axes, columns) for cell in cells]
    if any("error" in row for row in rows):
        rows = [{**row, "error": row.get("error")} for row in rows]
    return rows


def _axes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The key paths whose values differ between the cells; of a single cell, all that it sets."""
    paths = dict.fromkeys(path for cell in cells for path in cell["overrides"])
    if len(cells) == 1:
        return list(paths)
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
        # An earlier version called a run completed whose last loss on val was no number.
        lost = "best" in result and "loss" not in (result["best"] or {"loss": 0})
        return "diverged" if result.get("outcome") == "diverged" or lost else "done"
    if attempts and "end" not in attempts[-1] and run.alive():
        return "running"
    if run.cancelled():
        return "cancelled"
    if not attempts:
        return "new"
    if "end" not in attempts[-1]:
        return "killed"
    return str(attempts[-1]["cause"]).lower()


def best_row(rows: Sequence[Row]) -> Row | None:
    """The finished row of the highest val/accuracy; of equals the one of the lower val/loss, then the earlier.

    A run that diverged, or whose val/loss is not a finite number, is never the best.
    """
    best = min(rows, key=_rank, default=None)
    return best if best is not None and is_comparable(best) else None


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first; those that diverged or were not measured last, in order."""
    return sorted(rows, key=_rank)


def _rank(row: Row) -> tuple[bool, float, float, int]:
    if not is_comparable(row):
        return True, 0.0, 0.0, row["index"]
    return False, -row["val/accuracy"], row["val/loss"], row["index"]


def is_comparable(row: Row) -> bool:
    """Whether the run came to its end with a finite accuracy and loss on val."""
    measured = (row.get("val/accuracy"), row.get("val/loss"))
    return row["state"] != "diverged" and all(value is not None and math.isfinite(value) for value in measured)


def write_tables(sweep: SweepDir, rows: Sequence[Row]) -> list[Path]:
    """table.csv, table.md and table.parquet of the sweep, best first, all with every cell in them."""
    import pandas as pd

    frame = pd.DataFrame(ranked(rows))
    for name in frame:
        # A column of parquet is all of one type; an axis may have several, or numbers of more than 64 bits.
        kinds = {type(value) for value in frame[name] if frame[name].dtype == "object" and not _is_missing(value)}
        if len(kinds) > 1 or kinds & {int, dict, list}:
            frame[name] = frame[name].map(show_value, na_action="ignore")
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    shown = frame.drop(columns="index").astype(object).where(frame.drop(columns="index").notna(), "")
    contents: dict[str, bytes | str] = {
        "csv": frame.to_csv(index=False),
        "md": shown.map(show_value).to_markdown(index=False, disable_numparse=True) + "\n",
        "parquet": parquet.getvalue(),
    }
    for suffix, content in contents.items():
        replace_file(sweep.table_file(suffix), content)
    return [sweep.table_file(suffix) for suffix in contents]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def print_table(rows: Sequence[Row], title: str) -> None:
    """Results on stdout, best first, without what only the files need."""
    hidden = {"index", "steps", "train_s", "train/accuracy", "interruptions"}
    print_rows([{name: value for name, value in row.items() if name not in hidden} for row in ranked(rows)], title)


def curve_of(run: RunDir, name: str) -> tuple[list[float], list[float]]:
    """x (epochs) and y of a scalar of a run, from its metrics log."""
    points = [(row["epoch"], row[name]) for row in run.metrics() if row.get(name) is not None]
    return [x for x, _ in points], [y for _, y in points]


def draw_sweep(sweep: SweepDir, rows: Sequence[Row], path: Path) -> Path | None:
    """val/accuracy over the epochs of every run that has measured it, the best one named; None if none has."""
    from src.results.figures import Curve, draw_curves

    best = best_row(rows)
    curves = []
    for row in ranked(rows):
        try:
            x, y = curve_of(sweep.run(str(row["run"])), "val/accuracy")
        except RunError as error:
            log.warning(f"not in the figure: {error}")
            continue
        if x:
            label = f"{row['run']} (best)" if best and row["run"] == best["run"] else str(row["run"])
            curves.append(Curve(label, x, y, faint=len(rows) > 8 and not label.endswith("(best)")))
    if not curves:
        return None
    return draw_curves(path, curves, "epoch", "val/accuracy", title=sweep.name)


def collect(sweep: SweepDir, artifacts: Path) -> list[Row]:
    """Write the tables and the figure of a sweep and show them; the rows, in order."""
    rows = read_rows(sweep)
    files = write_tables(sweep, rows)
    print_table(rows, sweep.name)
    best = best_row(rows)
    if best:
        print(f"best: {best['run']}  val/accuracy {best['val/accuracy']:.4f}  val/loss {best['val/loss']:.4f}")
    figure = draw_sweep(sweep, rows, artifacts / f"{sweep.name}.png")
    for path in (*files, *([figure] if figure else [])):
        print(f"wrote {path}")
    return rows
