"""Writes and prints an answer: the tables, aggregate.json, the effects and the settings over their seeds.

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
                least_significant_difference, terms, levels, slopes, failures, verdicts}, see statistics/effects.py:
                terms       {term, share, p_value, adjusted_p_value, degrees_of_freedom} of each axis and pair of axes
                levels      by axis, {value, runs, mean, low, high} of each value
                slopes      by axis of numbers that nearly all differ, {change, low, high, per, peak}
                failures    by axis, {value, failed, runs, p_value, dropped} of each value with failures
                verdicts    one sentence per axis
    next_steps  what the search leaves open: a best value at the edge of an axis, a best epoch that is the last one
    notes       how the runs are ranked, what was changed or excluded, and what could not be read
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from relay.files import replace_file
from relay.results.answer import Answer
from relay.results.statements import Say, effect_statements, english, method_statements
from relay.results.statistics.effects import Effects
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row
from relay.results.tables.table_files import markdown, print_table, write_rows
from relay.runs.cells import SEED_AXIS
from relay.terminal import print_rows

SCHEMA = 2


def write_answer(answer: Answer, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the rows as table.csv, .md and .parquet, aggregate.json, and effects and seeds where there are any."""
    files = write_rows(rows, folder / "table")
    files.append(folder / "aggregate.json")
    replace_file(files[-1], json.dumps(answer_json(answer, rows), allow_nan=False) + "\n")
    if answer.seeds:
        files += write_rows(answer.seeds, folder / "seeds", ("csv", "md"))
    if answer.effects:
        files += write_effects(answer.effects, answer.table.select, folder)
    return files


def seeds_title(answer: Answer, say: Say) -> str:
    """What the table of the settings over their seeds shows."""
    scope = say("scope_both" if answer.noise and answer.noise.has_images else "scope_seeds")
    return say("over_seeds", column=answer.table.select.column, scope=scope)


def print_answer(answer: Answer, shown: Sequence[Row]) -> None:
    """Print the rows, the settings over their seeds, and which are as good as the best."""
    if shown:
        print_table(shown, answer.table.name)
    else:
        print(f"{answer.table.name}: no row matches --where")
    if answer.seeds:
        print_rows(answer.seeds, seeds_title(answer, english()))
    for line in answer.sentences():
        print(line)


def answer_json(answer: Answer, rows: Sequence[Row]) -> dict[str, Any]:
    """The content of aggregate.json, with `rows` of the table."""
    table, best, row = answer.table, answer.best(), answer.best_row()
    axes = {axis: row.get(axis) for axis in table.axes if axis != SEED_AXIS} if row else {}
    return {
        "schema": SCHEMA,
        "name": table.name,
        "select": {"name": table.select.name, "direction": table.select.direction, "column": table.select.column},
        "axes": list(table.axes),
        "rows": list(rows),
        "seeds": list(answer.seeds),
        "best": {"run": row["run"], "value": best.mean, "seeds": len(best.values), **axes} if row and best else None,
        "as_good": _as_good(answer) if answer.settings else None,
        "effects": _effects_json(answer.effects, table.select) if answer.effects else None,
        "next_steps": answer.next_steps(english()),
        "notes": list(answer.notes),
    }


def _as_good(answer: Answer) -> dict[str, Any]:
    found, say = answer.best_set, english()
    names = ("decided", "scope", "threshold", "noise", "noise_degrees", "crossed", "collapsed", "far", "winner")
    facts: dict[str, Any] = {"compared": len(answer.settings), "runs": None, **dict.fromkeys(names)}
    if found is None:
        return {**facts, "sentences": answer.best_set_sentences(say)}
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
        "sentences": answer.best_set_sentences(say),
    }


def _effects_json(effects: Effects, select: Ranking) -> dict[str, Any]:
    """The effects for aggregate.json."""
    return {
        "complete": effects.complete,
        "cells": effects.cells,
        "planned": effects.planned,
        "new_images": effects.new_images,
        "noise": effects.noise,
        "noise_degrees": effects.degrees,
        "least_significant_difference": effects.lsd,
        "terms": _terms(effects),
        "levels": {axis: _levels(effects, axis) for axis in effects.levels},
        "slopes": {
            axis: {
                "change": slope.change,
                **dict(zip(("low", "high"), slope.interval or (None, None), strict=True)),
                "per": "factor of ten" if slope.trend.logarithmic else "unit",
                "peak": slope.peak,
            }
            for axis, slope in effects.slopes.items()
        },
        "failures": {axis: [asdict(level) for level in levels] for axis, levels in effects.failures.items()},
        "verdicts": effect_statements(effects, select, english()),
    }


def write_effects(effects: Effects, select: Ranking, folder: Path) -> list[Path]:
    """Write effects.csv, one line per term, and effects.md, with the means of the levels and a verdict per axis."""
    terms, say = _terms(effects), english()
    method = "\n".join(method_statements(effects, select, say))
    verdicts = "".join(f"- {sentence}\n" for sentence in effect_statements(effects, select, say))
    parts = [f"# What each hyperparameter did to {select.column}\n", method + "\n", verdicts, markdown(terms)]
    for axis in effects.levels:
        levels = [{axis: level.pop("value"), **level} for level in _levels(effects, axis)]
        parts += [f"## {axis}\n", markdown(levels)]
    path = folder / "effects.md"
    replace_file(path, "\n".join(parts))
    return [*write_rows(terms, folder / "effects", ("csv",)), path]


def _terms(effects: Effects) -> list[dict[str, Any]]:
    return [
        {
            "term": term.name,
            "share": term.share,
            "p_value": term.p_value,
            "adjusted_p_value": term.adjusted,
            "degrees_of_freedom": term.degrees,
        }
        for term in effects.terms
    ]


def _levels(effects: Effects, axis: str) -> list[dict[str, Any]]:
    return [
        {"value": level.value, "runs": level.n, "mean": level.mean}
        | dict(zip(("low", "high"), level.interval or (None, None), strict=True))
        for level in effects.levels[axis]
    ]
