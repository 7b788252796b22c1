"""Rows of coverage: what each hyperparameter did, which of its values are better, and which fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relay.results.statistics.effects import Effects, effects_of
from relay.results.statistics.failures import failures_of
from tests.benchmarks.coverage_best_set import FULL, SIXTEEN, THROUGH, level_luck
from tests.benchmarks.coverage_row import Found, Random, Row, rows_of
from tests.benchmarks.simulation import SELECT, Sweep, epochs_of, grid_of, sweep_of

ANY_AXIS = "any axis is said to have an effect, where none has"
ANY_PAIR = "any effect is said to depend on another axis, where none does"
NULL_AXIS = "an axis without effect is said to have one, of its test alone"
NULL_PAIR = "any effect is said to depend on an axis without effect"
ALONE = "one of two equally good values is said to be better than the other"
EQUAL = "any of five equal values is said to be better than another"
LEADS = "a value that fails in 8 of 10 runs has the best mean of those that are compared"
MORE = "any value is said to fail more often, where all fail equally"
POWER = "power: an effect of 1.4 sd is found"
RAW = "power: the same without the correction for five axes"
FAILS = "power: a value with 40 % of failures, against 2 %, is found"

Make = Callable[[Random], Sweep]
CROSSED = grid_of(2, 3, 3, 2)
LEVELS = grid_of(6, 2, 4)


def effects_in(sweep: Sweep) -> Effects:
    """The effects in a sweep, as its results have them."""
    sweep = sweep.without_collapsed()
    found = effects_of(sweep.design(), sweep.noise(), SELECT)
    assert found is not None
    return found


def any_clear(effects: Effects, axes: int) -> bool:
    """Whether any main effect (1), or any pair (2), is clear."""
    return any(term.is_clear for term in effects.terms if len(term.axes) == axes)


def null(points: Sequence[Mapping[str, Any]], images: int = 0, sd: float = 0.01) -> Make:
    """A grid without any effect."""
    return lambda random: sweep_of(random, [0.4] * len(points), images, sd=sd, points=points)


def _nothing(situation: str, make: Make) -> list[Row]:
    def simulate(random: Random) -> Sequence[Found]:
        found = effects_in(make(random))
        return any_clear(found, 1), any_clear(found, 2)

    return rows_of(situation, {ANY_AXIS: 0.05, ANY_PAIR: 0.05}, simulate)


def _luck(situation: str, images: int, points: Sequence[Mapping[str, Any]], sd: float) -> list[Row]:
    def simulate(random: Random) -> Sequence[Found]:
        found = effects_in(level_luck(random, images, points, sd))
        return any_clear(found, 1), first_p_value(found) < 0.05

    return rows_of(situation, {ANY_AXIS: 0.05, NULL_AXIS: 0.05}, simulate)


def _trends(situation: str, make: Make) -> Row:
    return Row(ANY_AXIS, situation, 0.05, lambda random: any_clear(effects_in(make(random)), 1))


def first_p_value(effects: Effects) -> float:
    """Of the first axis; 1 if it has none."""
    found = effects.terms[0].p_value
    return 1.0 if found is None else found


def interacting(random: Random, missing: float) -> Sequence[Found]:
    """The axes b and c interact by four standard deviations; a and d have no effect."""
    truths = np.array([0.4 + 0.02 * (point["b"] == 1 and point["c"] == 2) for point in CROSSED])
    found = effects_in(sweep_of(random, truths, 0, sd=0.005, points=CROSSED).without(missing, random))
    pairs = [term for term in found.terms if len(term.axes) == 2 and set(term.axes) & {"a", "d"}]
    return first_p_value(found) < 0.05, any(pair.is_clear for pair in pairs)


def searched(count: int, images: int = 0) -> Make:
    """A random search of three numbers without any effect."""

    def make(random: Random) -> Sweep:
        points = [
            {
                "lr": 10 ** random.uniform(-5, -1),
                "decay": 10 ** random.uniform(-6, -2),
                "width": random.uniform(16, 512),
            }
            for _ in range(count)
        ]
        return sweep_of(random, [0.4] * count, images, sd=0.01, points=points)

    return make


def clear_effect(random: Random) -> Sequence[Found]:
    """The values of the axis d differ by 1.4 standard deviations of a run."""
    truths = np.array([0.4 + 0.014 * point["d"] for point in FULL])
    found = effects_in(sweep_of(random, truths, 0, sd=0.01, points=FULL)).main("d")
    assert found is not None
    return found.is_clear, (found.p_value or 0.0) < 0.05


def one_of_two(random: Random, missing: float) -> bool:
    """The first two values of c are equally good, and better than the third."""
    truths = np.array([0.4 - 0.05 * (point["c"] == 2) for point in FULL])
    levels = effects_in(sweep_of(random, truths, 0, sd=0.01, points=FULL).without(missing, random)).levels["c"]
    assert all(level.worse_than is not None for level in levels)
    return any({0, 1} & (levels[number].worse_than or set()) for number in (0, 1))


def one_of_five(random: Random, images: int) -> bool:
    """Five of six values are equal, and the last one is worse, so that the axis has a clear effect."""
    truths = np.array([0.4 - 0.1 * (point["a"] == 5) for point in LEVELS])
    levels = effects_in(sweep_of(random, truths, images, sd=0.01, points=LEVELS)).levels["a"]
    assert levels[5].worse_than
    return any(set(range(5)) & (level.worse_than or set()) for level in levels[:5])


def failing_leads(random: Random) -> bool:
    """Whether a value that mostly fails leads by the few runs that did not."""
    points = grid_of(3, 3, 2)
    sweep = sweep_of(random, [0.4] * 18, 0, sd=0.01, points=points)
    failed = [number for number in range(18) if points[number]["a"] == 0 and random.random() < 0.8]
    found = sweep.answer(failed).effects
    levels = found.levels.get("a", ()) if found else ()
    return bool(levels) and max(levels, key=lambda level: level.mean).value == 0


def more_failures(random: Random, share: float, worse: float | None = None) -> bool:
    """Whether any value of 48 cells, or the value with more failures, is said to fail more often."""
    chance = [worse if worse is not None and point["c"] == 1 else share for point in FULL]
    failed = np.flatnonzero(random.random(48) < chance)
    table = sweep_of(random, [0.4] * 48, 0, sd=0.01, points=FULL).table([int(number) for number in failed])
    found = failures_of(table, table.axes, [])
    named = found.get("c", []) if worse is not None else [level for own in found.values() for level in own]
    return any(level.p_value < 0.05 and (worse is None or level.value == 1) for level in named)


def noisy_levels(random: Random) -> bool:
    """The axis b has no effect; two of three values of c have 4.4 times the noise."""
    sd = np.array([0.005 if point["c"] == 0 else 0.022 for point in FULL])
    found = effects_in(sweep_of(random, [0.4] * 48, 0, sd=sd, points=FULL)).main("b")
    assert found is not None
    return (found.p_value or 1.0) < 0.05


def through_answer(random: Random) -> Sequence[Found]:
    """A null grid, from the table and the predictions."""
    found = sweep_of(random, [0.4] * 16, 600, sd=0.008, points=SIXTEEN).answer().effects
    assert found is not None
    return any_clear(found, 1), any_clear(found, 2)


ROWS = [
    *_nothing("48 cells, five axes, no images", null(FULL)),
    *_nothing("48 cells, 20 % missing, no images", lambda r: null(FULL)(r).without(0.2, r)),
    *_nothing("48 cells, 40 % missing, no images", lambda r: null(FULL)(r).without(0.4, r)),
    *_nothing("48 cells, n 2000, seed sd 0.005", null(FULL, 2000, 0.005)),
    *_nothing("16 cells, best of 10 epochs, n 600", lambda r: epochs_of(r, [0.4] * 16, 600, 10, points=SIXTEEN)),
    *rows_of("16 cells, n 600, seed sd 0.008" + THROUGH, {ANY_AXIS: 0.05, ANY_PAIR: 0.05}, through_answer),
    *(
        row
        for missing in (0.2, 0.4)
        for row in rows_of(
            f"two of four axes interact, 36 cells, {missing:.0%} missing".replace("%", " %"),
            {NULL_AXIS: 0.05, NULL_PAIR: 0.05},
            lambda r, missing=missing: interacting(r, missing),  # type: ignore[misc]
        )
    ),
    *_luck("levels share luck, 16 cells, n 600", 600, SIXTEEN, 0.0),
    *_luck("levels share luck, 16 cells, n 8000", 8000, SIXTEEN, 0.0),
    *_luck("levels share luck, 48 cells, n 2000, seed sd 0.002", 2000, FULL, 0.002),
    Row(NULL_AXIS, "noise 4.4 times larger at two of three values of another axis", 0.05, noisy_levels),
    _trends("random search, 30 runs, three numbers, no images", searched(30)),
    _trends("random search, 12 runs, three numbers, no images", searched(12)),
    _trends("random search, 30 runs, three numbers, n 1000", searched(30, 1000)),
    _trends("one axis of 8 learning rates, no images", null([{"lr": 10.0**-place} for place in range(8)])),
    *rows_of("48 cells, five axes, no images", {POWER: None, RAW: None}, clear_effect),
    Row(ALONE, "three values, 48 cells, no images", 0.05, lambda r: one_of_two(r, 0.0)),
    Row(ALONE, "three values, 48 cells, 20 % missing, no images", 0.05, lambda r: one_of_two(r, 0.2)),
    Row(EQUAL, "the sixth is worse, 48 cells, no images", 0.05, lambda r: one_of_five(r, 0)),
    Row(EQUAL, "the sixth is worse, 48 cells, n 1000", 0.05, lambda r: one_of_five(r, 1000)),
    Row(LEADS, "18 cells, from the table", 0.05, failing_leads),
    Row(MORE, "48 cells, 10 % fail", 0.05, lambda r: more_failures(r, 0.1)),
    Row(MORE, "48 cells, 30 % fail", 0.05, lambda r: more_failures(r, 0.3)),
    Row(FAILS, "three values, 48 cells", None, lambda r: more_failures(r, 0.02, 0.4)),
]
