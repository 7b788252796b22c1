"""The sentences about the results of a sweep, for the terminal, the files and the report: statements.LANGUAGE.yaml.

`say(name, **values)` gives the sentence `name` of one language.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from relay.results.statistics.best_set import Winner
from relay.results.statistics.effects import Effects, Level, Slope, Term, shown_level
from relay.results.statistics.failures import LevelFailures
from relay.results.statistics.intervals import p_text
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, Table
from relay.runs.cells import SEED_AXIS, axis_key
from relay.terminal import show_value
from relay.texts import Texts

Say = Callable[..., str]
STATEMENTS = Path(__file__).with_name("statements")
# Of the settings, or values, in a sentence; the tables have all.
_MOST_NAMES = 6
# Values that differ by less of their size are equal up to rounding.
_EQUAL = 1e-12


@dataclass(frozen=True)
class BestSet:
    """The settings that may be the best one, by the names of their first runs, the leading one first.

    `compared`: how many there are. `threshold`, `decided`: see `Contenders`; `range`: of all values. `scope`:
    whether it holds for new images and new seeds, or for one of them. `noise`: the standard deviation between seeds
    (of a run on these images, if the scope is seeds), its `degrees` of freedom, and its source: seeds, pairs,
    mains, or "" if it is not known. `image_sets`: how many different sets of images there are. `crossed`: whether
    no image took part in the choice of its epoch. `collapsed`, `far`: names of runs that do not fit the others.
    `measured`: the leading setting's value. `best_of_epochs`: whether the luck of the best epoch is left in all
    values.
    """

    names: Sequence[str]
    compared: int
    decided: bool
    threshold: float
    range: float
    scope: Literal["both", "images", "seeds"]
    noise_source: str
    noise: float | None
    degrees: float
    image_sets: int
    crossed: bool
    collapsed: Sequence[str]
    far: Sequence[str]
    winner: Winner | None
    measured: float
    best_of_epochs: bool

    def verdict(self, name: str | None) -> str | None:
        """`best`, `as good`, `worse` or `collapsed`, of the setting whose first run has this name; None if unknown."""
        if name is None:
            return None
        if name in self.collapsed:
            return "collapsed"
        if name == self.names[0]:
            return "best"
        return "as good" if name in self.names else "worse"


@functools.cache
def english() -> Texts:
    """The sentences in English."""
    return Texts("en", STATEMENTS)


def digits(value: float, sign: str = "") -> str:
    """A number in a sentence: four decimals, or two digits if it is tiny."""
    return f"{value:{sign}.4f}" if value == 0 or abs(value) >= 0.0001 else f"{value:{sign}.2g}"


def best_set_statements(found: BestSet, select: Ranking, say: Say) -> list[str]:
    """Which settings may be the best one, why, and what to expect of the leading one."""
    column = select.column
    others, total = found.names[1:], found.compared - 1
    lines = []
    kind = "networks" if found.scope == "images" else "settings"
    if found.range <= _EQUAL * abs(found.measured):
        lines.append(say("all_equal", column=column))
    elif not found.decided:
        sentence = "undecided_share" if select.is_share and found.threshold >= 1 else "undecided"
        lines.append(say(sentence, column=column, threshold=digits(found.threshold), range=digits(found.range)))
    elif others:
        lines.append(say(f"best_set_{kind}", count=len(others), total=total, names=_shortened(others)))
    elif total:
        lines.append(say(f"best_set_alone_{kind}", total=total))
    if found.decided and total:
        lines.append(say(f"guarantee_{found.scope}"))
    if found.noise_source:
        kind = "seed" if found.scope == "both" else "run"
        values = {"noise": digits(found.noise or 0.0), "degrees": f"{found.degrees:.0f}"}
        lines.append(say(f"noise_{kind}_{found.noise_source}", **values))
    if found.image_sets > 1:
        lines.append(say("image_sets", sets=found.image_sets))
    if found.collapsed:
        lines.append(say("collapsed", column=column, runs=_shortened(found.collapsed)))
    if found.far:
        lines.append(say("far", runs=_shortened(found.far)))
    if found.winner:
        low, high = found.winner.interval
        numbers = {"expected": found.winner.expected, "low": low, "high": high, "measured": found.measured}
        shown = {name: digits(value) for name, value in numbers.items()}
        lines.append(say(f"winner_{found.scope}", column=column, **shown))
    if found.best_of_epochs:
        lines.append(say("best_of_epochs"))
    return lines


def method_statements(effects: Effects, select: Ranking, say: Say) -> list[str]:
    """How the effects were found, and what they do not cover."""
    counts = {"cells": effects.cells, "runs": effects.runs, "planned": effects.planned}
    if not effects.terms:
        return []
    complete = "effects_part" if effects.cells < effects.planned else "effects_complete"
    lines = [say(complete if effects.complete else "effects_incomplete", column=select.column, **counts)]
    if effects.slopes:
        lines.append(say("effects_fitted", axes=", ".join(effects.slopes)))
    if all(term.p_value is None for term in effects.terms):
        return [*lines, say("no_noise")]
    lines.append(say("tests_both" if effects.new_images else "tests_seeds"))
    if effects.lsd is not None:
        lines.append(say("lsd", lsd=digits(effects.lsd)))
    return lines


def effect_statements(effects: Effects, select: Ranking, say: Say) -> list[str]:
    """One sentence per axis."""
    axes = dict.fromkeys([*effects.failures, *effects.levels])
    return [_effect(effects, axis, select, say) for axis in axes]


def _effect(effects: Effects, axis: str, select: Ranking, say: Say) -> str:
    failures = [_failure(level, say) for level in effects.failures.get(axis, ())]
    main, levels = effects.main(axis), effects.levels.get(axis, ())
    if main is None:
        return say("effect_plain", axis=axis, finding=_chained(failures, say))
    if main.share is None:
        finding = _chained([*failures, say("effect_aliased")], say)
        return say("effect_plain", axis=axis, finding=finding)
    clear = [term for term in effects.terms if axis in term.axes and len(term.axes) > 1 and term.is_clear]
    depends = ", ".join(next(other for other in pair.axes if other != axis) for pair in clear)
    if axis in effects.slopes:
        finding = _slope(effects.slopes[axis], main, select, say)
    else:
        finding = _levels(levels, main, select, say)
    if depends and not effects.complete:
        # The main effect of an incomplete grid has no unique meaning beside an interaction.
        finding = say("effect_incomplete", others=depends)
    elif depends:
        finding = say("effect_depends" if main.is_clear else "effect_only_with", finding=finding, others=depends)
    return say("effect", axis=axis, finding=_chained([*failures, finding], say), numbers=_numbers(effects, main, say))


def _levels(levels: Sequence[Level], main: Term, select: Ranking, say: Say) -> str:
    """What the comparison of the values of an axis says."""
    numbers = sorted(range(len(levels)), key=lambda number: -select.score(levels[number].mean))
    best, worst = levels[numbers[0]], levels[numbers[-1]]
    if main.adjusted is None:
        if abs(best.mean - worst.mean) <= _EQUAL * abs(best.mean):
            return say("effect_none")
        difference = digits(abs(best.mean - worst.mean))
        return say("effect_untested", best=best.shown, worst=worst.shown, difference=difference)
    if not main.is_clear:
        return say("effect_none")
    behind = [number for number in numbers if numbers[0] in (levels[number].worse_than or ())]
    if not behind:
        return say("effect_unclear")
    leading = [number for number in numbers if number not in behind]
    shown = {number: levels[number].shown for number in numbers}
    others = _joined([shown[number] for number in behind], say)
    if len(leading) == 1:
        return say("effect_one", best=best.shown, others=others)
    if all(set(leading) <= (levels[number].worse_than or frozenset()) for number in behind):
        leaders = _joined([shown[number] for number in leading], say)
        return say("effect_two" if len(leading) == 2 else "effect_several", leaders=leaders, others=others)
    rest = _joined([shown[number] for number in leading[1:]], say)
    return say("effect_mixed", best=best.shown, others=others, rest=rest)


def _slope(slope: Slope, main: Term, select: Ranking, say: Say) -> str:
    unit = say("unit_factor" if slope.trend.logarithmic else "unit_one")
    if slope.interval is None:
        return say("effect_slope_untested", column=select.column, unit=unit, change=digits(slope.change, "+"))
    if not main.is_clear:
        return say("effect_none")
    low, high = slope.interval
    shown = {"change": digits(slope.change, "+"), "low": digits(low, "+"), "high": digits(high, "+")}
    finding = say("effect_slope", column=select.column, unit=unit, **shown)
    if slope.peak is not None:
        return say("effect_peak", finding=finding, peak=f"{slope.peak:.2g}")
    # What is clear is then the curvature.
    return say("effect_curved", finding=finding) if low <= 0 <= high else finding


def _failure(level: LevelFailures, say: Say) -> str:
    values = {"value": shown_level(level.value), "failed": level.failed, "runs": level.runs, "p": p_text(level.p_value)}
    if level.dropped:
        return say("failed_dropped", **values)
    return say("failed_more" if level.p_value < 0.05 else "failed", **values)


def _numbers(effects: Effects, main: Term, say: Say) -> str:
    share = say("numbers_share", share=f"{100 * (main.share or 0):.1f}")
    if main.adjusted is None:
        return share
    return say("numbers_p" if effects.new_images else "numbers_p_here", p=p_text(main.adjusted), share=share)


def _chained(parts: Sequence[str], say: Say) -> str:
    return functools.reduce(lambda first, second: say("next", first=first, second=second), parts)


def _joined(names: Sequence[str], say: Say) -> str:
    if len(names) > _MOST_NAMES:
        return _shortened(names)
    return f" {say('and')} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


# Of two values, one is always at the edge, whatever the results are.
_LEAST_VALUES = 3


@dataclass(frozen=True)
class Edge:
    """The best setting has the `largest` or `smallest` value of an axis that was searched."""

    axis: str
    value: float
    side: Literal["largest", "smallest"]


def edges_of(table: Table, best: Row) -> list[Edge]:
    """The axes with at least three numbers on which `best`, a row of the best setting, has the largest or smallest.

    All rows count, finished or not: values that failed, or are still to come, were searched, too. A smallest value of
    0, or of 1 among whole numbers, is no edge: nothing lies beyond it. A value that is not better than any other
    one yet is no edge either.
    """
    found = []
    for axis in table.axes:
        values = {number for row in table.rows if (number := _number(row.get(axis))) is not None}
        own = _number(best.get(axis))
        if axis == SEED_AXIS or own is None or len(values) < _LEAST_VALUES or not _is_better(table, best, axis):
            continue
        ends_there = own == 0 or (own == 1 and all(value == round(value) for value in values))
        if own == max(values):
            found.append(Edge(axis, own, "largest"))
        elif own == min(values) and not ends_there:
            found.append(Edge(axis, own, "smallest"))
    return found


def _is_better(table: Table, best: Row, axis: str) -> bool:
    """Whether `best` is better than a run with another value of an axis."""
    column, score = table.select.column, table.select.score
    others = (row for row in table.rows if table.is_comparable(row) and axis_key(row[axis]) != axis_key(best[axis]))
    return any(score(row[column]) < score(best[column]) for row in others)


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) and math.isfinite(value) else None


def search_statements(table: Table, best: Row, say: Say) -> list[str]:
    """What a search leaves open, in sentences. `best`: the row of the best run of the best setting."""
    edges = [say(f"edge_{edge.side}", axis=edge.axis, value=show_value(edge.value)) for edge in edges_of(table, best)]
    return [*edges, *last_epoch_statements(str(best["run"]), best, say)]


def last_epoch_statements(run: str, row: Mapping[str, Any], say: Say) -> list[str]:
    """A sentence if the best epoch is the last of several: `best_epoch` and `epochs` of a row of a table."""
    best, epochs = row.get("best_epoch"), row.get("epochs")
    if best is None or epochs is None or best < epochs or epochs <= 1:
        return []
    return [say("last_epoch", run=run, epoch=show_value(best), epochs=show_value(epochs))]
