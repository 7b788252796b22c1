"""What a grid says, for M5: which settings may be the best one, and what each hyperparameter did."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from relay.results.answer import Answer
from relay.results.output import seeds_title
from relay.results.statements import effect_statements, method_statements
from relay.results.statistics.early import Early
from relay.results.tables.table import Row, curve_of
from relay.runs.cells import SEED_AXIS, axis_key
from src.outcomes.training_figure import loss_gaps
from src.reporting.blocks import Block, Items, Paragraph
from src.reporting.finding import SectionSweep
from src.reporting.report import Report, percent, shown, signed


def best_set_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """Which settings may be the best one, what that does not cover, and what to expect of the leading one."""
    for sentence in (*answer.best_set_sentences(report.texts), *answer.next_steps(report.texts)):
        yield Paragraph(sentence)


def seed_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The settings over their seeds, if the seed is an axis."""
    if answer.seeds:
        yield Paragraph(seeds_title(answer, report.texts))
        yield report.table(list(answer.seeds[0]), [[shown(value) for value in row.values()] for row in answer.seeds])


def effects_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The shares of the variance, a verdict for each axis, and the means of its values."""
    effects, select = answer.effects, answer.table.select
    if effects is None:
        return
    for sentence in method_statements(effects, select, report.texts):
        yield Paragraph(sentence)
    if not effects.terms:
        # One value of each axis is left: only what failed can be said.
        yield Items(effect_statements(effects, select, report.texts))
        return
    terms = [
        [
            term.name,
            "" if term.share is None else percent(term.share, 1),
            _p_value(term.p_value),
            _p_value(term.adjusted),
            str(term.degrees),
        ]
        for term in effects.terms
    ]
    yield report.table(["term", "share", "p_value", "adjusted", "degrees"], terms)
    yield Items(effect_statements(effects, select, report.texts))
    levels = [
        [axis, shown(level.value), str(level.n), f"{level.mean:.4f}", *(f"{b:.4f}" for b in level.interval or ())]
        for axis, values in effects.levels.items()
        for level in values
    ]
    width = max(map(len, levels))
    yield report.table(
        ["axis", "value", "runs", "mean", "low", "high"][:width], [row + [""] * (width - len(row)) for row in levels]
    )


def findings(report: Report, answer: Answer) -> dict[str, str]:
    """The sentence about each axis of a grid, by its name."""
    effects = answer.effects
    if effects is None:
        return {}
    said = effect_statements(effects, answer.table.select, report.texts)
    return dict(zip(dict.fromkeys([*effects.failures, *effects.levels]), said, strict=True))


@dataclass(frozen=True)
class LevelCurves:
    """What the curves of the finished runs with one value of an axis show, as means over these runs.

    `first`: the selecting metric after the first epoch. `rises`: the share of the steps
    from one epoch to the next in which val/loss rises. `gap`: val minus train loss at the last epoch.
    """

    value: str
    runs: int
    first: float
    rises: float | None
    gap: float | None


def levels_of_curves(found: SectionSweep) -> dict[str, list[LevelCurves]]:
    """Axis -> its values in order, but the seed."""
    table = found.answer.table
    column = table.select.column
    rows = [row for row in table.rows if table.is_comparable(row)]
    seen: dict[str, _Seen] = {}
    for row in rows:
        run = found.sweep.run(str(row["run"]))
        metric, losses, gaps = curve_of(run, column)[1], curve_of(run, "val/loss")[1], loss_gaps(run)
        if metric:
            rises = [after > before for before, after in itertools.pairwise(losses)]
            seen[run.name] = _Seen(metric[0], rises, gaps[max(gaps)] if gaps else None)
    levels: dict[str, list[LevelCurves]] = {}
    for axis in table.axes:
        values = dict.fromkeys(axis_key(row[axis]) for row in rows)
        alike = {key: [row for row in rows if axis_key(row[axis]) == key and row["run"] in seen] for key in values}
        if axis != SEED_AXIS and len(alike) > 1:
            levels[axis] = [_level(own[0][axis], own, seen) for own in alike.values() if own]
    return levels


@dataclass(frozen=True)
class _Seen:
    first: float
    rises: Sequence[bool]
    gap: float | None


def _level(value: Any, rows: Sequence[Row], seen: Mapping[str, _Seen]) -> LevelCurves:
    curves = [seen[str(row["run"])] for row in rows]
    rises = [rose for each in curves for rose in each.rises]
    gaps = [each.gap for each in curves if each.gap is not None]
    first = mean(each.first for each in curves)
    return LevelCurves(shown(value), len(rows), first, mean(rises) if rises else None, mean(gaps) if gaps else None)


def curves_blocks(report: Report, found: SectionSweep) -> Iterator[Block]:
    """Speed, stability and overfitting for each value of each axis, as their curves show them."""
    rows = [
        [
            axis,
            level.value,
            str(level.runs),
            f"{level.first:.4f}",
            "" if level.rises is None else percent(level.rises),
            signed(level.gap),
        ]
        for axis, levels in levels_of_curves(found).items()
        for level in levels
    ]
    if rows:
        yield report.say("curves_intro", metric=found.answer.table.select.column)
        yield report.table(["axis", "value", "runs", "first_epoch", "loss_rises", "gap"], rows)


def early_blocks(report: Report, early: Early | None) -> Iterator[Block]:
    """How early the final ranking could be known."""
    if early is None:
        return
    at, rank = early.at, early.best_ranks[early.at]
    epochs = {"epoch": f"{early.epochs[at]:g}", "last": f"{early.epochs[-1]:g}"}
    sentence = "early_leads" if rank == 1 else "early"
    yield report.say(sentence, **epochs, correlation=f"{early.correlations[at]:.2f}", rank=rank, cells=early.cells)


def _p_value(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
