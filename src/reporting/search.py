"""Sections 4, 5 and 8 of the report, the searches: M4 (LR finder), M5 (grid) and M8 (refined grid)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from src.reporting.blocks import Block, Origin, Table
from src.reporting.finding import Found
from src.reporting.report import Report, shown, signed, told
from src.results.improvement import improvement
from src.results.lr_figures import METHODS, draw_lr_sweep, suggested_rates
from src.results.table import Row, draw_sweep, read_table
from src.results.table import Table as Results
from src.runs.hparams import axis_name

# Of a grid's table; table.md of the sweep has all of them.
_MOST_ROWS = 60


def lr_section(report: Report) -> Iterator[Block]:
    """Section 4."""
    yield report.heading(2, "section_4")
    yield from report.ask("M4", _m4)


def grid_section(report: Report) -> Iterator[Block]:
    """Section 5."""
    yield report.heading(2, "section_5")
    yield from report.ask("M5", _m5)


def refined_section(report: Report) -> Iterator[Block]:
    """Section 8."""
    yield report.heading(2, "section_8")
    yield from report.ask("M8", _m8)


def _m4(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.lr_sweep(), "lr", "src.lr_finder")
    yield from report.about(found)
    runs, finder = found.done(), found.config().lr_finder
    results = [run.result() or {} for run in runs]
    summary = suggested_rates(results)
    span = {"low": f"{finder.min_lr:g}", "high": f"{finder.max_lr:g}", "steps": finder.num_steps}
    yield report.say("m4_method", **span, seeds=", ".join(map(str, summary["seeds"])))
    yield from report.drawn("lr_finder", lambda path: draw_lr_sweep(results, path))
    rows = [
        [report.texts(f"method_{method}"), *(_rate(summary[method][name]) for name in ("median", "min", "max"))]
        for method in METHODS
    ]
    yield report.table(["method", "suggested", "lowest", "highest"], rows)
    if all(summary[method]["median"] is None for method in METHODS):
        yield report.say("m4_none")
    optimizer = report.config.train.optimizer
    chosen = {"lr": f"{optimizer.lr:g}", "weight_decay": f"{optimizer.weight_decay:g}"}
    yield report.say("m4_chosen", **chosen)
    yield report.origin(*runs)


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2e}"


def _m5(report: Report) -> Iterator[Block]:
    if not report.config.hparams.axes:
        yield report.say("no_grid")
        return
    found = report.need(report.sweeps.grid(), "grid", "src.grid_search")
    yield from report.about(found)
    yield from _axes(report, found)
    results = read_table(found.sweep)
    best = results.best()
    if best:
        metrics = {"metric": results.select.column, "value": shown(best[results.select.column])}
        yield report.say("m5_best", run=best["run"], **metrics, loss=shown(best["val/loss"]))
    else:
        yield report.say("m5_no_best")
    yield from _ranked(report, results)
    yield from report.drawn("grid_curves", lambda path: draw_sweep(found.sweep, results, path))
    yield Origin(found.sweep.name)


def _axes(report: Report, found: Found) -> Iterator[Block]:
    """The values that were searched, the seeds, and the length of each run."""
    cells = found.sweep.cells()
    values: dict[str, list[str]] = {}
    for cell in cells:
        for path, value in cell["overrides"].items():
            # The grid's epochs are an override of every cell, and no axis.
            if path != "train.epochs":
                values.setdefault(axis_name(path), []).append(shown(value))
    rows = [[axis, ", ".join(dict.fromkeys(tried))] for axis, tried in values.items()]
    yield report.table(["axis", "values"], rows)
    seed, epochs = found.config().train.seed, {run.config().train.epochs for run in found.sweep.runs()[:1]}
    length = ", ".join(map(str, sorted(epochs)))
    yield report.say("grid_facts", sweep=found.sweep.name, cells=len(cells), epochs=length, seed=seed)


def _ranked(report: Report, results: Results) -> Iterator[Block]:
    """The rows of a grid, best first, with the best one emphasised."""
    ranked, best = results.ranked(), results.best()
    yield _results_table(report, results, ranked[:_MOST_ROWS], marked=[0] if best else [])
    if len(ranked) > _MOST_ROWS:
        yield report.say("more_rows", shown=_MOST_ROWS, total=len(ranked))


def _results_table(report: Report, results: Results, rows: Sequence[Row], marked: Sequence[int]) -> Table:
    measured = dict.fromkeys([results.select.column, "val/loss", "val/accuracy", "train/loss"])
    columns = ["run", *results.axes, *measured, "state", *(["error"] if any("error" in row for row in rows) else [])]
    return report.table(columns, [[shown(row.get(name)) for name in columns] for row in rows], marked)


def _m8(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.refined(), "refined", "src.grid_search", "--refined")
    yield from report.about(found)
    yield from _axes(report, found)
    results = read_table(found.sweep)
    yield from _ranked(report, results)
    yield from report.drawn("refined_curves", lambda path: draw_sweep(found.sweep, results, path))
    yield Origin(found.sweep.name)
    first = report.sweeps.grid()
    better = improvement(found.sweep, first.sweep) if first else None
    if better is None:
        yield report.say("m8_not_compared")
        return
    sides = [
        [report.texts(f"side_{side}"), f"{each['sweep']}/{each['run']}", shown(each["epochs"]), shown(each["value"])]
        for side, each in (("first", better["first"]), ("refined", better["refined"]))
    ]
    yield report.table(["grid", "run", "epochs", better["metric"]], sides)
    values = {"metric": better["metric"], "difference": signed(better["difference"])}
    yield report.say("m8_difference", **values, verdict=told(report, better["low"], better["high"]))
    if better["first"]["epochs"] != better["refined"]["epochs"]:
        yield report.say("m8_epochs")
