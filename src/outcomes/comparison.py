"""Compares cells of a grid: for each axis, the best cell and the cells that differ from it only in that axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay import hints
from relay.errors import RunError
from relay.figures import drawing, in_legend, new_figure, save_figure, whole_ticks
from relay.results.answer import Answer
from relay.results.collection import answer_of_sweep
from relay.results.tables.table import Row, curve_of
from relay.runs.cells import axis_value
from relay.runs.exports import export_figure
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests
from relay.terminal import show_value
from src.config.schema import Config
from src.requests import best_cell, grid_request


@dataclass(frozen=True)
class Comparison:
    """Cells that differ only in `axis`: the value of each, its run and its row of the table."""

    axis: str
    runs: Sequence[tuple[Any, RunDir, Row]]

    def val_metrics(self) -> list[str]:
        """The val/ columns: the metric that selects the best cell first, then the loss, then the others."""
        return [name for _, _, row in self.runs[:1] for name in row if name.startswith("val/")]

    def sentence(self) -> str:
        """The comparison in one line, as numbers."""
        parts = [
            f"{show_value(value)}: "
            + ", ".join(f"{name.removeprefix('val/')} {show_value(row[name])}" for name in self.val_metrics())
            for value, _, row in self.runs
        ]
        # Training loss is averaged while the weights still change and the inputs may be augmented, so the gap to the
        # val loss shows overfitting only roughly; the sentence says so.
        gaps = [
            f"{show_value(value)}: {row['val/loss'] - row['train/loss']:+.3f}"
            for value, _, row in self.runs
            if row.get("train/loss") is not None
        ]
        return (
            f"{self.axis}, on val: "
            + "; ".join(parts)
            + f"  (val loss less train loss, which is a mean over the epoch: {', '.join(gaps)})"
        )


def compare_axes(sweep: SweepDir, answer: Answer) -> list[Comparison]:
    """A comparison for each axis in which the best cell has finished neighbours; [] if no cell is done."""
    table = answer.table
    rows = {str(row["run"]): row for row in table.rows}
    best = answer.best_row()
    if best is None:
        return []
    cells = {cell.name: cell.overrides for cell in sweep.cells()}
    centre = cells[str(best["run"])]
    comparisons = []
    for axis in centre:
        chosen = [
            name
            for name, overrides in cells.items()
            if axis in overrides and _differs_only_in(axis, overrides, centre) and table.is_comparable(rows[name])
        ]
        if len(chosen) > 1:
            chosen.sort(key=lambda name: _order(cells[name][axis]))
            comparisons.append(
                Comparison(
                    sweep.axis_name(axis),
                    [(axis_value(cells[name][axis]), sweep.run(name), rows[name]) for name in chosen],
                )
            )
    return comparisons


def _differs_only_in(axis: str, overrides: Mapping[str, Any], centre: Mapping[str, Any]) -> bool:
    return all(overrides.get(path) == value for path, value in centre.items() if path != axis)


def _order(value: Any) -> tuple[int, Any]:
    """A sort key: numbers by value, then lists item by item, then everything else by its text."""
    if isinstance(value, int | float):
        return 0, value
    if isinstance(value, list):
        return 1, [_order(item) for item in value]
    return 2, str(value)


@drawing
def draw_comparison(comparison: Comparison, path: Path) -> Path | None:
    """Draw the losses and the val metrics of the compared runs over the epochs, one panel each."""
    names = ["train/loss", "val/loss", *(name for name in comparison.val_metrics() if name != "val/loss")]
    figure = new_figure(4 * len(names), 3.8)
    panels: Any = figure.subplots(1, len(names))
    for axes, name in zip(panels, names, strict=True):
        for value, run, _ in comparison.runs:
            x, y = curve_of(run, name)
            axes.plot(x, y, label=in_legend(show_value(value)), marker="o" if len(x) < 4 else None)
        whole_ticks(axes)
        axes.set(xlabel="epoch", title=name)
        axes.grid()
    panels[-1].legend(title=comparison.axis, fontsize="small")
    return save_figure(figure, path)


def show_neighbours(config: Config, named: SweepDir | None) -> None:
    """Compare the best cell of a grid with its neighbours, one figure for each axis.

    The grid is `named`, or the newest one of the configuration, or the newest of all. Raises RunError if none has two
    finished cells.
    """
    paths = config.paths
    known = [named] if named else with_whole_manifests(sweeps(Path(paths.runs_dir)))
    grids = [candidate for candidate in known if candidate.kind == "grid"]
    if not named and config.hparams.axes:
        key = grid_request(config).key
        # sort() is stable: grids of this configuration move to the end, and both groups stay in order of time.
        grids.sort(key=lambda candidate: candidate.meta()["key"] == key)
    for grid in reversed(grids):
        comparisons = compare_axes(grid, answer_of_sweep(grid))
        if comparisons:
            break
    else:
        if named:
            best_cell(named)  # Raises RunError if its cells are damaged.
        raise RunError(
            f"{paths.runs_dir}: no grid{f' named {named.name}' if named else ''} has two finished cells; "
            f"to run one: {hints.command('hpc.launch', 'grid')}"
        )
    runs = grid.runs()
    done = sum(run.is_done() for run in runs)
    unfinished = f" (so far: {done} of {len(runs)} cells are done)" if done < len(runs) else ""
    print(f"{grid.name}: the best cell and those that differ from it in one value{unfinished}")
    for comparison in comparisons:
        print(comparison.sentence())
        path = draw_comparison(comparison, grid.figure(f"compare_{comparison.axis}"))
        if path:
            print(f"  wrote {export_figure(path, grid, Path(paths.artifacts_dir))}")
