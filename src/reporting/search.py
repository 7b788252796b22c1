"""Sections 4, 5 and 8 of the report, the searches: M4 (LR finder), M5 (grid) and M8 (refined grid)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from src.reporting.blocks import Block, Origin, Paragraph
from src.reporting.effects import best_set_blocks, effects_blocks, seed_blocks
from src.reporting.finding import Found
from src.reporting.report import Report, shown, signed, told
from src.requests import first_grid_of
from src.results.answer import Answer
from src.results.collection import answer_of_sweep, draw_sweep
from src.results.improvement import improvement
from src.results.lr_figures import METHODS, draw_lr_sweep, suggested_rates
from src.runs.hparams import axis_name

# Of a grid's table; table.md of the sweep has all of them.
_MOST_ROWS = 60
_GRID_FIGURES = ("effects", "heatmap", "parallel", "best_worst", "rank_correlation")


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
    found = report.need(report.sweeps.lr_sweep, "lr", "src.lr_finder")
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
    training = report.sweeps.training
    for trained in training.done() if training else ():
        final = trained.config().train.optimizer
        yield report.say("m4_final", lr=f"{final.lr:g}", weight_decay=f"{final.weight_decay:g}", run=trained.label)
    yield report.origin(*runs)


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2e}"


def _m5(report: Report) -> Iterator[Block]:
    if not report.config.hparams.axes:
        yield report.say("no_grid")
        return
    found = report.need(report.sweeps.grid, "grid", "src.grid_search")
    yield from report.about(found)
    yield from _axes(report, found)
    answer = answer_of_sweep(found.sweep)
    results = answer.table
    best = results.best()
    if best:
        metrics = {"metric": results.select.column, "value": shown(best[results.select.column])}
        yield report.say("m5_best", run=best["run"], **metrics, loss=shown(best["val/loss"]))
    else:
        yield report.say("m5_no_best")
    yield from _ranked(report, answer)
    yield from best_set_blocks(report, answer)
    yield from seed_blocks(report, answer)
    yield from report.drawn("grid_curves", lambda path: draw_sweep(found.sweep, results, path))
    yield from effects_blocks(report, answer)
    # Drawn with the tables of the sweep, when its last run ended or by aggregate.
    for name in _GRID_FIGURES:
        yield from report.copied(name, found.sweep.figure(name))
    for note in answer.notes:
        yield Paragraph(note)
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


def _ranked(report: Report, answer: Answer) -> Iterator[Block]:
    """The rows of a grid, best first, with the best one emphasised."""
    results, rows = answer.table, answer.rows()
    measured = dict.fromkeys([results.select.column, "val/loss", "val/accuracy", "train/loss"])
    marks = [name for name in ("error", "verdict", "p_best") if any(name in row for row in rows)]
    columns = ["run", *marks, *results.axes, *measured, "state"]
    cells = [[_cell(report, name, row.get(name)) for name in columns] for row in rows[:_MOST_ROWS]]
    yield report.table(columns, cells, marked=[0] if results.best() else [])
    if len(rows) > _MOST_ROWS:
        yield report.say("more_rows", shown=_MOST_ROWS, total=len(rows))


def _cell(report: Report, column: str, value: Any) -> str:
    sentence = f"mark_{value}".replace(" ", "_")
    return report.texts(sentence) if column == "verdict" and report.texts.has(sentence) else shown(value)


def _m8(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.refined, "refined", "src.grid_search", "--refined")
    yield from report.about(found)
    yield from _axes(report, found)
    origin = found.sweep.meta().get("origin")
    if origin:
        yield report.say("m8_origin", run=origin["run"], sweep=origin["sweep"])
    answer = answer_of_sweep(found.sweep)
    yield from _ranked(report, answer)
    yield from best_set_blocks(report, answer)
    yield from report.drawn("refined_curves", lambda path: draw_sweep(found.sweep, answer.table, path))
    yield Origin(found.sweep.name)
    first = first_grid_of(found.sweep)
    better = improvement(found.sweep, first) if first else None
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
