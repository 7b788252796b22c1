"""Runs of a grid side by side: for each axis, the best cell and those that differ from it in that axis alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.figures import new_figure, save_figure, whole_ticks
from src.results import Row, best_row, curve_of, is_comparable, read_rows
from src.rundir import RunDir, SweepDir
from src.tables import show_value

_PANELS = ("train/loss", "val/loss", "val/accuracy")


@dataclass(frozen=True)
class Comparison:
    """Cells that differ in `axis` alone: the value of each, its run and its row of results."""

    axis: str
    runs: Sequence[tuple[Any, RunDir, Row]]

    def sentence(self) -> str:
        """What is seen, in numbers."""
        parts = [
            f"{show_value(value)}: accuracy {show_value(row['val/accuracy'])}, loss {show_value(row['val/loss'])}"
            for value, _, row in self.runs
        ]
        gaps = [
            f"{show_value(value)}: {row['val/loss'] - row['train/loss']:+.3f}"
            for value, _, row in self.runs
            if row.get("train/loss") is not None
        ]
        return (
            f"{self.axis}, on val: "
            + "; ".join(parts)
            + f"  (val loss less train loss, which is a mean over the epoch with augmentation: {', '.join(gaps)})"
        )


def compare_axes(sweep: SweepDir) -> list[Comparison]:
    """A comparison for each axis in which the best cell has finished neighbours; none where no cell is done."""
    rows = {str(row["run"]): row for row in read_rows(sweep)}
    best = best_row(list(rows.values()))
    if best is None:
        return []
    cells = {str(cell["name"]): cell["overrides"] for cell in sweep.cells()}
    centre = cells[str(best["run"])]
    found = []
    for axis in centre:
        chosen = [
            name
            for name, overrides in cells.items()
            if axis in overrides and _differs_only_in(axis, overrides, centre) and is_comparable(rows[name])
        ]
        if len(chosen) > 1:
            chosen.sort(key=lambda name: _order(cells[name][axis]))
            found.append(
                Comparison(axis, [(_shown(cells[name][axis]), sweep.run(name), rows[name]) for name in chosen])
            )
    return found


def _differs_only_in(axis: str, overrides: Mapping[str, Any], centre: Mapping[str, Any]) -> bool:
    return all(overrides.get(path) == value for path, value in centre.items() if path != axis)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, then everything else by its text."""
    number = isinstance(value, int | float)
    return not number, value if number else 0, str(value)


def _shown(value: Any) -> Any:
    return "-".join(map(str, value)) if isinstance(value, list) else value


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Train loss, val loss and val accuracy of the compared runs, over the epochs."""
    figure = new_figure(12, 3.8)
    panels: Any = figure.subplots(1, len(_PANELS))
    for axes, name in zip(panels, _PANELS, strict=True):
        for value, run, _ in comparison.runs:
            x, y = curve_of(run, name)
            axes.plot(x, y, label=show_value(value), marker="o" if len(x) < 4 else None)
        whole_ticks(axes)
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
    panels[-1].legend(title=comparison.axis.rsplit(".", 1)[-1], fontsize="small")
    return save_figure(figure, path)
