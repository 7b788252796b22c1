"""What the results of a sweep say: which settings may be the best one, and what each hyperparameter did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from relay.results.statements import (
    BestSet,
    Say,
    best_set_statements,
    digits,
    effect_statements,
    english,
    search_statements,
)
from relay.results.statistics.best_set import Winner, contenders_of, winner_of
from relay.results.statistics.design import Design
from relay.results.statistics.effects import Effects, effects_of
from relay.results.statistics.failures import FAILED, Outliers, failures_of, find_outliers
from relay.results.statistics.image_scores import ImageScores, kept_of, read_scores
from relay.results.statistics.intervals import LEVEL, around
from relay.results.statistics.noise import Noise, noise_of
from relay.results.tables.table import Row, SettingResults, Table, settings_of
from relay.runs.cells import SEED_AXIS, axis_key
from relay.runs.predictions import Predictions


@dataclass(frozen=True)
class Answer:
    """A table and what follows from it. `settings`: those with a comparable run, the best first. `seeds`: one row per
    setting, see `_seed_rows`.
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
        seeds = _seed_rows(self._table, [self._settings[number] for number in kept], noise)
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
        remaining = [
            place
            for place, number in enumerate(kept)
            if not any((axis, axis_key(self._settings[number].rows[0].get(axis))) in dropped for axis in self._axes)
        ]
        planned = len({self._table.setting(row) for row in self._table.rows})
        if dropped and remaining:
            design = self._design([kept[place] for place in remaining])
            # Repetitions of the dropped settings still say how large the noise is.
            noise = (
                noise.restricted(remaining)
                if self._repeated
                else self._noise([kept[place] for place in remaining], design)
            )
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


def _seed_rows(table: Table, settings: Sequence[SettingResults], noise: Noise) -> list[dict[str, Any]]:
    """One row per setting, the best mean first; [] if the seed is no axis.

    Columns: the axes but the seed, `n` seeds, and `mean`, `sd`, `low`, `high` of the selecting metric. The interval
    (95 %) is that of new seeds and, with results per image, of new images; the spread between seeds is pooled over the
    settings. `noise`: that of the settings, in their order.
    """
    if SEED_AXIS not in table.axes:
        return []
    select, found = table.select, []
    halves = noise.half_widths(LEVEL) if noise.spread.degrees else None
    images = noise.images() * noise.seeds
    for number, each in enumerate(settings):
        low, high = None, None
        if halves is not None:
            half, most = float(halves[number]), float(images[number])
            # Not around the mean, which has the luck of the best epochs.
            low, high = around(select.score(float(noise.values[number])), half, is_share=select.is_share, n=most)
        axes = {axis: each.rows[0].get(axis) for axis in table.axes if axis != SEED_AXIS}
        found.append({**axes, "n": len(each.values), "mean": each.mean, "sd": each.sd, "low": low, "high": high})
    return found
