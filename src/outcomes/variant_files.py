"""The files of a comparison: compare.csv, compare.md, compare.json and compare.png of its sweep.

compare.json holds {sweep, select, base, rows, note}; each row is one of `compare_variants`, and compare.csv and
compare.md are the same rows. An unknown value is null, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.config.yaml_file import json_text
from relay.figures import drawing, in_legend, new_figure, save_figure, whole_ticks
from relay.files import replace_file
from relay.results.tables.table import Row, Table, curve_of
from relay.results.tables.table_files import csv_of, markdown
from relay.runs.rundir import RunDir, SweepDir
from src.config.loading import make_config
from src.config.schema import Variant
from src.config.validation import BASE
from src.outcomes.training_figure import loss_gaps
from src.outcomes.variants import compare_variants

# Distinguishable without colour, too.
_MARKERS = "osD^vPX*"
NOTE = (
    "Differences are variant minus base, of the best epoch of each, on val. `estimate` leaves out the luck of having "
    "chosen the epochs on this data, where the runs have crossed predictions; `low` and `high` are its 95 % interval. "
    "The interval and `p_adjusted` are corrected for the number of variants (Holm): `p_adjusted` is below "
    "0.05 exactly where the interval excludes 0. The other metrics are described, without a correction. Intervals are "
    "paired over the examples, unless the two were measured on different ones. With one seed per variant, all of this "
    "is about these networks on new data; another seed may change it. The gap is val loss minus train loss at the last "
    "epoch; the train loss is a mean over the epoch, with augmentation if there is any."
)


def planned_variants(sweep: SweepDir) -> Mapping[str, Variant]:
    """The variants with which a comparison was planned, by name."""
    return make_config(sweep.meta()["config"], str(sweep.meta_file)).compare.variants


def write_comparison(sweep: SweepDir, table: Table, expected: Mapping[str, str | None]) -> tuple[list[Row], list[Path]]:
    """Write compare.csv, compare.md, compare.json and compare.png of a sweep; returns the rows and the paths."""
    rows, select = compare_variants(sweep, table, expected), table.select
    answer = {"sweep": sweep.name, "select": select.column, "base": BASE, "rows": rows, "note": NOTE}
    contents = {
        "compare.csv": csv_of(rows),
        "compare.md": f"{markdown(rows)}\n{NOTE}\n",
        "compare.json": json_text(answer),
    }
    files = [sweep.results_file(name) for name in contents]
    for path, content in zip(files, contents.values(), strict=True):
        replace_file(path, content)
    figure = draw_variants(sweep, select.column, sweep.figure("compare"))
    return rows, [*files, *([figure] if figure else [])]


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
