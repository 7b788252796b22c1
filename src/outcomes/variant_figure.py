"""One figure of the base training and its variants: losses, the selecting metric and the gap over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.figures import drawing, in_legend, new_figure, save_figure, whole_ticks
from relay.results.tables.table import curve_of
from relay.runs.rundir import RunDir, SweepDir
from src.outcomes.training_figure import loss_gaps

# Distinguishable without colour, too.
_MARKERS = "osD^vPX*"


@drawing
def draw_variants(sweep: SweepDir, column: str, path: Path) -> Path | None:
    """Overlay the curves of all runs of a sweep: train loss, val loss, the metric `column`, and the gap of the losses.

    None if no run has an epoch yet.
    """
    runs = [run for run in sweep.runs() if curve_of(run, "val/loss")[0]]
    if not runs:
        return None
    figure = new_figure(10, 7.4)
    panels: Any = figure.subplots(2, 2).ravel()
    titles = ("train/loss (mean over the epoch)", "val/loss", column, "gap: val/loss minus train/loss")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xlabel="epoch", title=title, ylabel="" if title == column else "nats")
        axes.grid(alpha=0.3)
    for number, run in enumerate(runs):
        _draw_run(panels, run, column, number)
    panels[3].axhline(0, color="grey", linewidth=0.8)
    for axes in panels:
        whole_ticks(axes)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(runs)), fontsize="small")
    return save_figure(figure, path)


def _draw_run(panels: Sequence[Any], run: RunDir, column: str, number: int) -> None:
    gaps = loss_gaps(run)
    curves = [curve_of(run, name) for name in ("train/loss_epoch", "val/loss", column)]
    curves.append((list(gaps), list(gaps.values())))
    for axes, (x, y) in zip(panels, curves, strict=True):
        axes.plot(
            x,
            y,
            label=in_legend(run.name),
            color=f"C{number % 10}",
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            # The base lies on top and is thicker: all others are seen against it.
            linewidth=2.4 if number == 0 else 1.3,
            zorder=3 if number == 0 else 2,
        )
