"""The base training and its variants (M7 of the report): their differences, what was expected and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.results.statistics.intervals import Interval
from relay.results.statistics.pairs import (
    UNPAIRED,
    Difference,
    Verdict,
    difference_of,
    difference_text,
    verdict_text,
    verdicts,
)
from relay.results.tables.table import Row, Table
from relay.runs.cells import axis_value
from relay.runs.rundir import RunDir, SweepDir
from relay.terminal import show_value
from src.config.validation import BASE, axis_name
from src.outcomes.training_figure import loss_gaps

# Described beside the selecting metric, without a verdict: one test for each variant.
_DESCRIBED = ("accuracy", "loss")


def described_metrics(select: str) -> list[str]:
    """The metrics that are described if `select` is the selecting one."""
    return [name for name in _DESCRIBED if name != select]


def compare_variants(sweep: SweepDir, table: Table, expected: Mapping[str, str | None]) -> list[Row]:
    """One row for the base and each variant, in order. `table`: that of the sweep.

    Keys: `run`, `changed` (what differs from the base, as text), `state`, the selecting metric and `val/loss` (of the
    best epoch), `train/loss` (of the last epoch), `gap`; against the base: `difference` of the selecting metric,
    `estimate`, `crossed`, `low`, `high` and `p_adjusted` (see `VariantDifference`), `paired` (whether both were
    measured on the same images), `accuracy_difference` and `loss_difference` with `_low` and `_high` unless they are
    the selecting metric, `gap_difference`; `expected` and `seen`. Also `environment`, if the table has that column.
    """
    cells = {cell.name: cell.overrides for cell in sweep.cells()}
    rows = {str(row["run"]): row for row in table.rows}
    gaps = {name: _last_gap(sweep.run(name), rows[name]) for name in rows}
    base = rows[BASE]
    found = _compare_all(sweep, table, rows)
    compared = []
    for name, row in rows.items():
        changed = {path: value for path, value in cells[name].items() if value != cells[BASE].get(path)}
        measured = {
            "run": name,
            "changed": ", ".join(f"{axis_name(path)} {show_value(axis_value(v))}" for path, v in changed.items()),
            "state": row["state"],
            table.select.column: row[table.select.column],
            "val/loss": row.get("val/loss"),
            "train/loss": row.get("train/loss"),
            "gap": gaps[name],
            **({"environment": row["environment"]} if "environment" in row else {}),
        }
        against = _numbers(table, row, base, found.get(name))
        gap, base_gap = gaps[name], gaps[BASE]
        if name in found and gap is not None and base_gap is not None:
            against["gap_difference"] = gap - base_gap
        seen = None
        if name in found:
            seen = _sentence(table, measured, against, found[name], base_gap)
        elif name != BASE:
            seen = f"no comparison: one of the two runs has no finite result (state {row['state']})"
        compared.append({**measured, **against, "expected": expected.get(name), "seen": seen})
    return compared


@dataclass(frozen=True)
class VariantDifference:
    """A variant minus the base: the selecting metric with its verdict among `tests` variants, and what is described.

    The estimate and its interval are of the crossed predictions where both runs have them: the best epoch of each was
    chosen on these images.
    """

    selecting: Difference | None
    verdict: Verdict | None
    tests: int
    described: Mapping[str, Interval | None]
    paired: bool | None


def _compare_all(sweep: SweepDir, table: Table, rows: Mapping[str, Row]) -> dict[str, VariantDifference]:
    """What was found for each variant that can be compared."""
    base = sweep.run(BASE)
    names = [name for name, row in rows.items() if name != BASE and table.is_comparable(row)]
    if not table.is_comparable(rows[BASE]):
        return {}
    selecting = [difference_of(sweep.run(name), base, table.select.name) for name in names]
    all_verdicts = verdicts(selecting)
    tests = sum(verdict is not None for verdict in all_verdicts)
    found = {}
    for name, difference, verdict in zip(names, selecting, all_verdicts, strict=True):
        others = {
            metric: difference_of(sweep.run(name), base, metric, crossed=False)
            for metric in described_metrics(table.select.name)
        }
        known = [each for each in (difference, *others.values()) if each]
        intervals = {metric: each.interval() if each else None for metric, each in others.items()}
        found[name] = VariantDifference(difference, verdict, tests, intervals, known[0].paired if known else None)
    return found


def _numbers(table: Table, row: Row, base: Row, found: VariantDifference | None) -> dict[str, Any]:
    """The columns of a variant against the base; all of them None if the two cannot be compared."""
    metrics = described_metrics(table.select.name)
    names = ["difference", "estimate", "crossed", "low", "high", "p_adjusted", "paired"]
    names += [f"{metric}_{part}" for metric in metrics for part in ("difference", "low", "high")]
    result: dict[str, Any] = dict.fromkeys([*names, "gap_difference"])
    if not found:
        return result
    result["difference"] = row[table.select.column] - base[table.select.column]
    result["paired"] = found.paired
    if found.selecting and found.verdict:
        result |= {"estimate": found.selecting.value, "low": found.verdict.low, "high": found.verdict.high}
        result |= {"crossed": found.selecting.crossed, "p_adjusted": found.verdict.p_value}
    for metric in metrics:
        result[f"{metric}_difference"] = row[f"val/{metric}"] - base[f"val/{metric}"]
        result[f"{metric}_low"], result[f"{metric}_high"] = found.described[metric] or (None, None)
    return result


def _last_gap(run: RunDir, row: Row) -> float | None:
    if row["state"] != "done":
        return None
    gaps = loss_gaps(run)
    return gaps[max(gaps)] if gaps else None


def _sentence(table: Table, row: Row, against: Row, found: VariantDifference, base_gap: float | None) -> str:
    """What was seen, as facts, in one sentence."""
    parts = [verdict_text(table.select.column, against["difference"], found.selecting, found.verdict, found.tests)]
    for metric, interval in found.described.items():
        parts.append(difference_text(f"val/{metric}", against[f"{metric}_difference"], interval))
    if found.paired is False:
        parts.append(UNPAIRED)
    if row["gap"] is not None and base_gap is not None:
        parts.append(f"gap between val and train loss {row['gap']:+.3f}, base {base_gap:+.3f}")
    return f"against the base: {'; '.join(parts)}."
