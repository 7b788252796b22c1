"""What the results of a sweep say: which settings are as good as the best one. The content of aggregate.json.

aggregate.json is one object. Unknown values are null.

    schema      1; a later version that removes or changes a key has another number
    name        of the sweep, or of the directory of foreign logs
    select      {name, direction, column}: the metric by which runs are chosen, and its column of the table
    axes        the columns of the hyperparameters that vary
    rows        the table, best first: the columns of table.csv; error and environment only if there is one to show
    seeds       one object per setting, best mean first, if the seed is an axis: the axes, n, mean, sd, low, high
    best        {run, value, and the axes} of the best run, or null
    as_good     null while nothing is done, or {method, compared, runs, probability, winner, sentence}:
                method      "bootstrap" (over images), "threshold" (from the residual of the effects), or null if there
                            is no estimate of the noise
                compared    the number of settings
                runs        the first run of each setting that cannot be told from the best one, which comes first
                probability by run, of being the best setting; {} without results per image
                winner      {measured, unbiased, low, high}, or null without results per image
                sentence    the method, and what it does not cover
    effects     null if no axis varies, or {complete, noise, noise_degrees, least_significant_difference, threshold,
                terms, levels, verdicts}, see src/results/effects.py:
                terms       {term, share, p_value, degrees_of_freedom} of each axis and pair of axes
                levels      by axis, {value, runs, mean, low, high} of each value
                verdicts    one sentence per axis
    notes       what could not be read
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from src.results.best_set import BestSet, best_set_by_images, best_set_by_threshold
from src.results.effects import Effects, effects_of
from src.results.effects_text import effects_json, noise_sentence, verdicts
from src.results.seeds import SettingResults, seed_rows, settings_of
from src.results.table import Row, Table
from src.runs.predictions import Predictions
from src.text import counted

SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """A table and what follows from it. `settings`: those with a comparable run, the best first."""

    table: Table
    settings: Sequence[SettingResults]
    best_set: BestSet | None
    effects: Effects | None
    notes: Sequence[str] = ()

    def rows(self) -> Sequence[Row]:
        """The rows of the table, best first, each with `verdict` and `p_best` after its state.

        `verdict`: `best`, `as good` or `worse`, of the row's setting; None where it is not known. `p_best`: the
        probability that it is the best; a column only if one is known. Neither if there is nothing to compare.
        """
        place = {id(row): each.name for each in self.settings for row in each.rows}
        found, ranked = self.best_set, self.table.ranked
        if not self.table.axes or self.table.select.column not in ranked[0]:
            return ranked
        marked = []
        for row in ranked:
            name = place.get(id(row))
            marks: Row = {"verdict": _verdict(name, found)}
            if found and found.probability:
                # A setting that was excluded before the bootstrap is the best in none of its resamples.
                marks["p_best"] = None if name is None else found.probability.get(name, 0.0)
            head = {key: row[key] for key in ("index", "run", "state")}
            marked.append({**head, **marks, **row})
        return marked

    def to_json(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The content of aggregate.json, with `rows` of the table."""
        table, best = self.table, self.table.best()
        axes = {axis: best.get(axis) for axis in table.axes} if best else {}
        return {
            "schema": SCHEMA,
            "name": table.name,
            "select": {"name": table.select.name, "direction": table.select.direction, "column": table.select.column},
            "axes": list(table.axes),
            "rows": list(rows),
            "seeds": seed_rows(table),
            "best": {"run": best["run"], "value": best[table.select.column], **axes} if best else None,
            "as_good": _as_json(self.best_set) if self.settings else None,
            "effects": effects_json(self.effects, table.select) if self.effects else None,
            "notes": list(self.notes),
        }

    def sentences(self) -> list[str]:
        """What to print below the table."""
        best, column = self.table.best(), self.table.select.column
        if best is None:
            return [*self.notes]
        found, values = self.best_set, dict.fromkeys((column, "val/loss"))
        lines = [f"best: {best['run']}  " + "  ".join(f"{name} {best[name]:.4f}" for name in values if name in best)]
        if found is None:
            lines += ["There are too few runs to say which other settings are as good."] if self.effects else []
            return [*lines, *self.notes]
        others = len(found.names) - 1
        if others:
            shown = ", ".join(found.names[1:6]) + (", …" if others > 5 else "")
            total = counted(found.compared - 1, "other setting")
            lines.append(f"cannot be told from the best: {others} of the {total} ({shown})")
        else:
            lines.append(f"better than the {counted(found.compared - 1, 'other setting')}, with 95 % confidence")
        lines.append(f"  {found.sentence}")
        if found.winner:
            winner = found.winner
            lines.append(
                f"  The best setting's {column}, free of the bias of having been selected: {winner.unbiased:.4f} "
                f"(95 %: {winner.low:.4f} to {winner.high:.4f}; measured: {winner.measured:.4f})"
            )
        return [*lines, *(verdicts(self.effects, self.table.select) if self.effects else []), *self.notes]


def _verdict(name: str | None, found: BestSet | None) -> str | None:
    if name is None or found is None:
        return None
    if name == found.names[0]:
        return "best"
    return "as good" if name in found.names else "worse"


def _as_json(found: BestSet | None) -> dict[str, Any]:
    if found is None:
        return {"method": None, "compared": None, "runs": None, "probability": {}, "winner": None, "sentence": None}
    facts = asdict(found)
    return {"method": facts["method"], "compared": facts["compared"], "runs": list(found.names)} | {
        key: facts[key] for key in ("probability", "winner", "sentence")
    }


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
    effects = effects_of(table) if is_grid else None
    found = None
    if len(settings) > 1:
        found = best_set_by_images(settings, table.select, predictions_of)
        if found is None and effects and effects.threshold is not None:
            found = best_set_by_threshold(settings, table.select, effects.threshold, noise_sentence(effects))
    return Answer(table, settings, found, effects, notes)
