"""What the results of a sweep say: which settings may be the best one, and what each hyperparameter did.

aggregate.json is one object. Unknown values are null.

    schema      2; a later version that removes or changes a key has another number
    name        of the sweep, or of the directory of foreign logs
    select      {name, direction, column}: the metric by which runs are chosen, and its column of the table
    axes        the columns of the hyperparameters that vary
    rows        the table, best first: the columns of table.csv; error and environment only if there is one to show
    seeds       one object per setting, best mean first, if the seed is an axis: the axes, n, mean, sd, low, high
    best        null, or the leading setting: {run, value, seeds, and the axes}; run: the best of its runs, value: the
                mean over its seeds
    as_good     null while nothing is done, or {compared, runs, decided, threshold, scope, noise, noise_degrees,
                crossed, collapsed, far, winner, sentences}:
                compared    the number of settings
                runs        the first run of each setting that may be the best, the leading one first; null if there is
                            no estimate of the noise
                decided     false if all values lie within `threshold`, the difference that would show
                scope       what the statement is about: "both" (new images and new seeds), "images" (new images, these
                            trained networks), "seeds" (new seeds, these images)
                noise       the standard deviation between seeds, or of a run on these images, if scope is "seeds"
                crossed     whether the luck of choosing the best epoch is removed
                collapsed   runs that are far below what the others suggest, and are left out
                far         runs that are far from what the others suggest, and are not left out
                winner      {expected, low, high, measured} of the leading setting, or null without results per image
                sentences   all of this in words
    effects     null if no axis varies, or {complete, cells, planned, new_images, noise, noise_degrees,
                least_significant_difference, terms, levels, slopes, failures, verdicts}, see src/results/statistics/effects.py:
                terms       {term, share, p_value, adjusted_p_value, degrees_of_freedom} of each axis and pair of axes
                levels      by axis, {value, runs, mean, low, high} of each value
                slopes      by axis of numbers that nearly all differ, {change, low, high, per, peak}
                failures    by axis, {value, failed, runs, p_value, dropped} of each value with failures
                verdicts    one sentence per axis
    next_steps  what the search leaves open: a best value at the edge of an axis, a best epoch that is the last one
    notes       how the runs are ranked, what was not taken as it is, and what could not be read
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from src.results.effects_files import effects_json
from src.results.statements import (
    BestSet,
    Say,
    best_set_statements,
    digits,
    effect_statements,
    english,
    search_statements,
)
from src.results.statistics.best_set import Winner, contenders_of, winner_of
from src.results.statistics.design import Design
from src.results.statistics.effects import Effects, effects_of
from src.results.statistics.failures import FAILED, Outliers, failures_of, find_outliers
from src.results.statistics.image_scores import ImageScores, kept_of, read_scores
from src.results.statistics.noise import Noise, noise_of
from src.results.statistics.seeds import seed_rows
from src.results.tables.table import Row, SettingResults, Table, settings_of
from src.runs.axes import SEED_AXIS, axis_key
from src.runs.predictions import Predictions

SCHEMA = 2


@dataclass(frozen=True)
class Answer:
    """A table and what follows from it. `settings`: those with a comparable run, the best first. `seeds`: one row per
    setting, see `seed_rows`.
    """

    table: Table
    settings: Sequence[SettingResults]
    best_set: BestSet | None
    effects: Effects | None
    seeds: Sequence[Row] = ()
    notes: Sequence[str] = ()
    noise: Noise | None = None

    def best(self) -> SettingResults | None:
        """The leading setting: the best mean of those that may be the best one. None while nothing is done."""
        leading = self.best_set.names[0] if self.best_set else None
        return next((each for each in self.settings if leading in (None, each.name)), None)

    def best_row(self) -> Row | None:
        """The best run of the leading setting."""
        best = self.best()
        return next((row for row in self.table.ranked if best and any(row is own for own in best.rows)), None)

    def rows(self) -> Sequence[Row]:
        """The rows of the table, best first, each with `verdict` after its state.

        `verdict`: `best`, `as good`, `worse` or `collapsed`, of the row's setting; None where it is not known. Not a
        column if there is nothing to compare, or the runs cannot decide.
        """
        place = {id(row): each.name for each in self.settings for row in each.rows}
        found, ranked = self.best_set, self.table.ranked
        if not self.table.axes or found is None or not found.decided or found.compared < 2:
            return ranked
        marked = []
        for row in ranked:
            head = {key: row[key] for key in ("index", "run", "state")}
            marked.append({**head, "verdict": found.verdict(place.get(id(row))), **row})
        return marked

    def to_json(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The content of aggregate.json, with `rows` of the table."""
        table, best, row = self.table, self.best(), self.best_row()
        axes = {axis: row.get(axis) for axis in table.axes if axis != SEED_AXIS} if row else {}
        return {
            "schema": SCHEMA,
            "name": table.name,
            "select": {"name": table.select.name, "direction": table.select.direction, "column": table.select.column},
            "axes": list(table.axes),
            "rows": list(rows),
            "seeds": list(self.seeds),
            "best": {"run": row["run"], "value": best.mean, "seeds": len(best.values), **axes}
            if row and best
            else None,
            "as_good": self._as_good() if self.settings else None,
            "effects": effects_json(self.effects, table.select) if self.effects else None,
            "next_steps": self.next_steps(english()),
            "notes": list(self.notes),
        }

    def _as_good(self) -> dict[str, Any]:
        found, say = self.best_set, english()
        names = ("decided", "scope", "threshold", "noise", "noise_degrees", "crossed", "collapsed", "far", "winner")
        facts: dict[str, Any] = {"compared": len(self.settings), "runs": None, **dict.fromkeys(names)}
        if found is None:
            return {**facts, "sentences": self.best_set_sentences(say)}
        facts |= {name: getattr(found, name) for name in ("compared", "decided", "scope", "noise", "crossed")}
        if found.winner:
            low, high = found.winner.interval
            facts["winner"] = {"expected": found.winner.expected, "low": low, "high": high, "measured": found.measured}
        return {
            **facts,
            "runs": list(found.names),
            "threshold": found.threshold if math.isfinite(found.threshold) else None,
            "noise_degrees": found.degrees,
            "collapsed": list(found.collapsed),
            "far": list(found.far),
            "sentences": self.best_set_sentences(say),
        }

    def sentences(self) -> list[str]:
        """What to print below the table."""
        best, row, select, say = self.best(), self.best_row(), self.table.select, english()
        if best is None or row is None:
            states = [row["state"] for row in self.table.rows]
            failed = sum(state in FAILED for state in states)
            return [*([say("all_failed", failed=failed, runs=len(states))] if failed else []), *self.notes]
        if len(best.values) > 1:
            axes = "  ".join(f"{axis}={row.get(axis)}" for axis in self.table.axes if axis != SEED_AXIS)
            mean = f"{select.column} {digits(best.mean)}, the mean of {len(best.values)} seeds"
            lines = [f"best: {axes}  {mean}" if axes else f"all seeds: {mean}"]
        else:
            values = dict.fromkeys((select.column, "val/loss"))
            known = [f"{name} {digits(row[name])}" for name in values if row.get(name) is not None]
            lines = ["  ".join([f"best: {row['run']}", *known])]
        lines += self.best_set_sentences(say)
        effects = effect_statements(self.effects, select, say) if self.effects else []
        return [*lines, *effects, *self.next_steps(say), *self.notes]

    def best_set_sentences(self, say: Say) -> list[str]:
        """Which settings may be the best one, in sentences; none if there is nothing to compare."""
        if self.best_set:
            return best_set_statements(self.best_set, self.table.select, say)
        return [say("best_set_unknown")] if len(self.settings) > 1 and self.table.axes else []

    def next_steps(self, say: Say) -> list[str]:
        """What the search leaves open, in sentences."""
        row = self.best_row()
        return search_statements(self.table, row, say) if row and self.table.axes else []


def answer_of(
    table: Table,
    predictions_of: Callable[[str], Predictions | None],
    notes: Sequence[str] = (),
    *,
    is_grid: bool = True,
) -> Answer:
    """What the table says. `predictions_of`: a run's results per image, by its name. Raises RunError if damaged.

    `is_grid`: whether the axes were combined; the variants of a comparison, which each change something else, were not.
    """
    settings = settings_of(table)
    if not settings:
        return Answer(table, settings, None, None, (), notes)
    several = len(settings) > 1 or SEED_AXIS in table.axes
    scores = read_scores(settings, table.select.name, predictions_of) if several else None
    return _Reader(table, settings, scores, is_grid=is_grid).answer(notes)


class _Reader:
    """Computes an answer from settings, of which some may be left out."""

    def __init__(
        self, table: Table, settings: Sequence[SettingResults], scores: ImageScores | None, *, is_grid: bool
    ) -> None:
        self._table, self._settings, self._scores, self._is_grid = table, settings, scores, is_grid
        self._axes = [axis for axis in table.axes if axis != SEED_AXIS]
        self._repeated = any(len(each.values) > 1 for each in settings)
        self._is_crossed = scores is not None and scores.crossed

    def answer(self, notes: Sequence[str]) -> Answer:
        import numpy as np

        everything = list(range(len(self._settings)))
        outliers = Outliers([], [])
        if self._is_grid and self._axes and not self._repeated and len(everything) > 1:
            values = noise_of(self._values(everything), self._groups(everything), None).values
            outliers = find_outliers(np.asarray(values), self._design)
        kept = [number for number in everything if number not in set(outliers.collapsed)]
        design = self._design(kept) if self._is_grid else None
        noise = self._noise(kept, design)
        seeds = seed_rows(self._table, [self._settings[number] for number in kept], noise)
        effects = self._effects(kept, design, noise, outliers) if design else None
        if design and design.trends and self._scores:
            # What a line or curve misses is more than noise: with results per image, these networks are compared.
            noise = self._noise(kept, None)
        best_set = self._best_set(kept, design, noise, outliers)
        return Answer(self._table, self._settings, best_set, effects, seeds, notes, noise)

    def _design(self, kept: Sequence[int]) -> Design:
        return Design([self._settings[number].rows[0] for number in kept], self._axes, repeated=self._repeated)

    def _values(self, kept: Sequence[int]) -> list[list[float]]:
        score = self._table.select.score
        return [[score(value) for value in self._settings[number].values] for number in kept]

    def _groups(self, kept: Sequence[int]) -> Sequence[Any]:
        if self._scores is None:
            return ()
        groups = self._scores.groups
        return groups if len(kept) == len(self._settings) else kept_of(groups, kept)

    def _noise(self, kept: Sequence[int], design: Design | None) -> Noise:
        basis = design.basis if design and design.axes else None
        crossed = self._is_crossed and self._chose_epochs()
        return noise_of(self._values(kept), self._groups(kept), basis, crossed=crossed)

    def _chose_epochs(self) -> bool:
        """Whether each value is the best of several epochs."""
        return any((row.get("epochs") or 0) > 1 or "best_step" in row for row in self._table.rows)

    def _effects(self, kept: Sequence[int], design: Design, noise: Noise, outliers: Outliers) -> Effects | None:
        names = [str(row["run"]) for number in outliers.collapsed for row in self._settings[number].rows]
        failures = failures_of(self._table, self._axes, names)
        dropped = {
            (axis, axis_key(level.value)) for axis, levels in failures.items() for level in levels if level.dropped
        }
        left = [
            place
            for place, number in enumerate(kept)
            if not any((axis, axis_key(self._settings[number].rows[0].get(axis))) in dropped for axis in self._axes)
        ]
        planned = len({self._table.setting(row) for row in self._table.rows})
        if dropped and left:
            design = self._design([kept[place] for place in left])
            # Repetitions of the dropped settings still say how large the noise is.
            noise = noise.restricted(left) if self._repeated else self._noise([kept[place] for place in left], design)
        return effects_of(design, noise, self._table.select, planned=planned, failures=failures)

    def _best_set(self, kept: Sequence[int], design: Design | None, noise: Noise, outliers: Outliers) -> BestSet | None:
        import numpy as np

        found, select = contenders_of(noise), self._table.select
        if found is None:
            return None
        leader = found.members[0]
        winner: Winner | None = winner_of(noise, found.members, leader, select)
        names = [each.name for each in self._settings]
        source = "" if not noise.spread.degrees else "seeds" if self._repeated else "mains"
        if source == "mains" and design and len(design.tested) > len(design.mains):
            source = "pairs"
        spread = noise.spread
        return BestSet(
            names=[names[kept[number]] for number in found.members],
            compared=len(kept),
            decided=found.decided,
            threshold=found.threshold,
            range=float(np.ptp(noise.values)),
            scope=("both" if source else "images") if noise.has_images else "seeds",
            noise_source=source,
            noise=math.sqrt(spread.of_seeds if noise.has_images else spread.variance) if source else None,
            degrees=spread.degrees,
            image_sets=len(noise.groups),
            crossed=self._is_crossed,
            collapsed=[names[number] for number in outliers.collapsed],
            far=[names[number] for number in outliers.far],
            winner=winner,
            measured=self._settings[kept[leader]].mean,
            best_of_epochs=not self._is_crossed and self._chose_epochs(),
        )
