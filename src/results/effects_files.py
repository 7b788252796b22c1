"""The effects of a grid as files: effects.csv and effects.md, and their part of aggregate.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.files import replace_file
from src.results.statements import effect_statements, english, method_statements
from src.results.statistics.effects import Effects
from src.results.tables.ranking import Ranking
from src.results.tables.table_files import markdown, write_rows


def effects_json(effects: Effects, select: Ranking) -> dict[str, Any]:
    """The effects for aggregate.json, see src/results/answer.py."""
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
