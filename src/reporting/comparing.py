"""Section 7 of the report, comparisons of trainings: M7."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from relay import hints
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, read_table
from src.models.registry import known
from src.outcomes.comparison import compare_axes, draw_comparison
from src.outcomes.variant_files import draw_variants, planned_variants
from src.outcomes.variants import compare_variants, described_metrics
from src.reporting.blocks import Block, Exact, Gap, SourceNote, TableBlock
from src.reporting.report import Report, shown, signed, state_text, verdict_sentence


def comparison_section(report: Report) -> Iterator[Block]:
    """Section 7."""
    yield report.heading(2, "section_7")
    yield from report.ask("M7", _m7)


def _m7(report: Report) -> Iterator[Block]:
    found = report.sweeps.comparison
    if found is None or not found.done():
        yield Gap(report.texts("gap_comparison"), [hints.command("src.compare_runs", *_suggested(report))])
        yield from report.try_to(_neighbours)
        return
    report.used[found.sweep.name] = found
    if report.config.compare.variants:
        yield from report.about(found)
    else:
        yield from report.environments(found)
    # An expectation that was edited since the runs were planned counts: it changes none of them.
    variants = {**planned_variants(found.sweep), **report.config.compare.variants}
    table = read_table(found.sweep)
    rows = compare_variants(found.sweep, table, {name: variant.expect for name, variant in variants.items()})
    select = table.select
    yield report.say("m7_intro", sweep=found.sweep.name)
    yield from report.drawn("comparison", lambda path: draw_variants(found.sweep, select.column, path))
    yield _variant_table(report, rows, select.column)
    yield report.table(["run", "expected", "seen"], [_seen(report, row, rows[0], select) for row in rows[1:]])
    yield report.say("m7_note")
    yield SourceNote(found.sweep.name)


def _suggested(report: Report) -> list[str]:
    """Variants for a configuration that names none: one change at a time of the rate, the decay and the network."""
    if report.config.compare.variants:
        return []
    optimizer, model = report.config.train.optimizer, report.config.model
    variants: dict[str, dict[str, Any]] = {
        "lower_lr": {"train.optimizer.lr": float(f"{optimizer.lr / 2:g}")},
        "higher_weight_decay": {"train.optimizer.weight_decay": float(f"{optimizer.weight_decay * 10 or 1e-4:g}")},
    }
    for name in known(model.type).main_options:
        others = [value for value in report.config.hparams.axes.get(name, ()) if value != getattr(model, name)]
        if others:
            variants[f"other_{name}"] = {f"model.{name}": others[0]}
    shown_as = ", ".join(
        f"{name}: {{{path}: {list(value) if isinstance(value, tuple) else value}}}"
        for name, change in variants.items()
        for path, value in change.items()
    )
    return ["--set", f"compare.variants={{{shown_as}}}"]


def _variant_table(report: Report, rows: list[Row], column: str) -> TableBlock:
    names = dict.fromkeys([column, "val/accuracy", "val/loss", "train/loss"])
    table = [
        [
            row["run"],
            row["changed"],
            state_text(report, row["state"]),
            *(shown(row.get(name)) for name in names),
            signed(row["gap"]),
        ]
        for row in rows
    ]
    return report.table(["run", "changed", "state", *names, "gap"], table)


def _seen(report: Report, row: Row, base: Row, select: Ranking) -> list[str]:
    """The name of a variant, what was expected of it, and what was seen, from the numbers of `compare_variants`."""
    # In the user's own words.
    expected = Exact(row["expected"] or report.texts("nothing_expected"))
    if row["difference"] is None:
        return [row["run"], expected, report.texts("m7_none", state=state_text(report, row["state"]))]
    parts = [f"{select.column} {signed(row['difference'])} ({verdict_sentence(report, row)})"]
    for metric in described_metrics(select.name):
        low, high = signed(row[f"{metric}_low"]), signed(row[f"{metric}_high"])
        interval = f" ({report.texts('interval_only', low=low, high=high)})" if low else ""
        parts.append(f"val/{metric} {signed(row[f'{metric}_difference'])}{interval}")
    if row["paired"] is False:
        parts.append(report.texts("unpaired"))
    if row["gap"] is not None and base["gap"] is not None:
        parts.append(report.texts("m7_gap", gap=signed(row["gap"]), base=signed(base["gap"])))
    return [row["run"], expected, "; ".join(parts)]


def _neighbours(report: Report) -> Iterator[Block]:
    """Until there are full trainings to compare: the best cell of the grid and those that differ in one value."""
    grid = report.sweeps.grid
    comparisons = compare_axes(grid.sweep, grid.answer) if grid else []
    if not grid or not comparisons:
        return
    report.used[grid.sweep.name] = grid
    yield report.say("m7_neighbours", sweep=grid.sweep.name)
    for number, comparison in enumerate(comparisons):
        columns = [*comparison.val_metrics(), "train/loss"]
        rows = [[shown(value), run.name, *(shown(row.get(c)) for c in columns)] for value, run, row in comparison.runs]
        yield report.table([comparison.axis, "run", *columns], rows)
        yield from report.drawn("neighbours", functools.partial(draw_comparison, comparison), f"_{number}")
    yield SourceNote(grid.sweep.name)
