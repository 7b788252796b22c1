"""Sections 5 and 8 of the report: the grid (M5) and the narrower grid around its best cell (M8)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from relay.results.answer import Answer
from relay.results.collection import answer_of_sweep, curves_of_sweep, draw_answer
from relay.results.improvement import improvement
from relay.results.statistics.early import how_early
from relay.results.tables.table import Row
from relay.runs.cells import SEED_AXIS
from src.config.loading import config_of
from src.config.validation import axis_name
from src.reporting.blocks import Block, Paragraph, SourceNote
from src.reporting.effects import best_set_blocks, curves_blocks, early_blocks, effects_blocks, seed_blocks
from src.reporting.finding import SectionSweep
from src.reporting.report import Report, shown, signed, state_text, verdict_sentence
from src.requests import first_grid_of

# Of a grid's table; table.md of the sweep has all of them.
_MOST_ROWS = 60


def grid_section(report: Report) -> Iterator[Block]:
    """Section 5."""
    yield report.heading(2, "section_5")
    yield from report.ask("M5", _m5)


def refined_section(report: Report) -> Iterator[Block]:
    """Section 8."""
    yield report.heading(2, "section_8")
    yield from report.ask("M8", _m8)


def _m5(report: Report) -> Iterator[Block]:
    if not report.config.hparams.axes:
        yield report.say("no_grid")
        return
    found = report.need(report.sweeps.grid, "grid", "src.grid_search")
    yield from report.about(found)
    yield from _axes(report, found)
    yield from _results(report, found, "grid")


def _results(report: Report, found: SectionSweep, folder: str) -> Iterator[Block]:
    """What a grid says: its table, the best cells, the effects, and its figures, which go into `folder`."""
    answer = found.answer
    results, setting, best = answer.table, answer.best(), answer.best_row()
    if setting and best and len(setting.values) > 1:
        axes = ", ".join(f"{axis} {shown(best[axis])}" for axis in results.axes if axis != SEED_AXIS)
        metrics = {"metric": results.select.column, "value": shown(setting.mean)}
        yield report.say("best_setting", axes=axes, seeds=len(setting.values), **metrics)
    elif best:
        metrics = {"metric": results.select.column, "value": shown(best[results.select.column])}
        yield report.say("best_cell", run=best["run"], **metrics, loss=shown(best["val/loss"]))
    else:
        yield report.say("no_best_cell")
    yield from _ranked(report, answer)
    yield from best_set_blocks(report, answer)
    yield from seed_blocks(report, answer)
    curves = functools.cache(curves_of_sweep(found.sweep, results.select.column))
    figures = report.all_drawn(folder, lambda path: draw_answer(answer, curves, path))
    yield from (figures[name] for name in ("curves", "parallel") if name in figures)
    yield from effects_blocks(report, answer)
    yield from (figures[name] for name in ("effects", "heatmap") if name in figures)
    yield from curves_blocks(report, found)
    yield from early_blocks(report, how_early(results, {row["run"]: curves(row["run"]) for row in results.rows}))
    yield from (figures[name] for name in ("rank_correlation",) if name in figures)
    for note in answer.notes:
        yield Paragraph(note)
    yield SourceNote(found.sweep.name)


def _axes(report: Report, found: SectionSweep) -> Iterator[Block]:
    """The values that were searched, the seeds, and the length of each run."""
    cells = found.sweep.cells()
    values: dict[str, list[str]] = {}
    for cell in cells:
        for path, value in cell.overrides.items():
            # The grid's epochs are an override of every cell, and no axis.
            if path != "train.epochs":
                values.setdefault(axis_name(path), []).append(shown(value))
    rows = [[axis, ", ".join(dict.fromkeys(tried))] for axis, tried in values.items()]
    yield report.table(["axis", "values"], rows)
    seed, epochs = found.config().train.seed, {config_of(run).train.epochs for run in found.sweep.runs()[:1]}
    length = ", ".join(map(str, sorted(epochs)))
    sentence = "grid_facts_seeds" if SEED_AXIS in values else "grid_facts"
    facts = {"cells": len(cells), "epochs": length} | ({} if SEED_AXIS in values else {"seed": seed})
    yield report.say(sentence, sweep=found.sweep.name, **facts)


def _ranked(report: Report, answer: Answer) -> Iterator[Block]:
    """The rows of a grid, best first, with the best one emphasised."""
    results, rows = answer.table, answer.rows()
    measured = dict.fromkeys([results.select.column, "val/loss", "val/accuracy", "train/loss"])
    marks = [name for name in ("error", "verdict") if any(name in row for row in rows)]
    # The values of the axes are also in the names of the runs, so they may be out of sight.
    columns = ["run", *marks, *measured, *results.axes, "state"]
    cells = [[_cell(report, name, row.get(name)) for name in columns] for row in rows[:_MOST_ROWS]]
    yield report.table(columns, cells, marked=_marked(answer, rows))
    if len(rows) > _MOST_ROWS:
        yield report.say("more_rows", shown=_MOST_ROWS, total=len(rows))


def _marked(answer: Answer, rows: Sequence[Row]) -> list[int]:
    """The places of the runs of the leading setting."""
    best = answer.best()
    names = {row["run"] for row in best.rows} if best else set()
    return [place for place, row in enumerate(rows[:_MOST_ROWS]) if row["run"] in names]


def _cell(report: Report, column: str, value: Any) -> str:
    if column == "state":
        return state_text(report, str(value))
    sentence = f"mark_{value}".replace(" ", "_")
    return report.texts(sentence) if column == "verdict" and report.texts.has(sentence) else shown(value)


def _m8(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.refined, "refined", "src.grid_search", "--refined")
    yield from report.about(found)
    yield from _axes(report, found)
    origin = found.sweep.meta().get("origin")
    if origin:
        yield report.say("m8_origin", run=origin["run"], sweep=origin["sweep"])
    yield from _results(report, found, "refined")
    first = first_grid_of(found.sweep)
    grid = report.sweeps.grid
    own = grid.answer if grid and grid.sweep == first else None
    better = improvement(found.sweep, found.answer, first, own or answer_of_sweep(first)) if first else None
    if better is None:
        yield report.say("m8_not_compared")
        return
    sides = [
        [report.texts(f"side_{side}"), f"{each['sweep']}/{each['run']}", shown(each["epochs"]), shown(each["value"])]
        for side, each in (("first", better["first"]), ("refined", better["refined"]))
    ]
    yield report.table(["grid", "run", "epochs", better["metric"]], sides)
    values = {"metric": better["metric"], "difference": signed(better["difference"])}
    yield report.say("m8_difference", **values, verdict=verdict_sentence(report, better))
    if better["low"] is not None:
        yield report.say("m8_selected")
    if better["paired"] is False:
        yield report.say("m8_unpaired")
    if better["first"]["epochs"] != better["refined"]["epochs"]:
        yield report.say("m8_epochs")
