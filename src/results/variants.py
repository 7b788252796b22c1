"""The base training and its variants (M7 of the report): their differences, what was expected and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.config.validation import BASE
from src.results.pairs import UNPAIRED, difference_of, verdict
from src.results.ranking import Ranking
from src.results.table import Row, Table, read_table
from src.results.terminal import show_value
from src.results.training_figure import loss_gaps
from src.runs.hparams import axis_name, axis_value
from src.runs.rundir import RunDir, SweepDir

_DIFFERENCES = (
    *("difference", "paired", "accuracy_difference", "accuracy_low", "accuracy_high", "p_value"),
    *("loss_difference", "loss_low", "loss_high", "gap_difference"),
)


def compare_variants(sweep: SweepDir, expected: Mapping[str, str | None]) -> list[Row]:
    """One row for the base and each variant, in order.

    Keys: `run`, `changed` (what differs from the base, as text), `state`, the selecting metric and `val/loss` (of the
    best epoch), `train/loss` (of the last epoch), `gap`; against the base: `difference` of the selecting metric,
    `paired` (whether both were measured on the same images), `accuracy_difference` with `_low`, `_high` and `p_value`,
    `loss_difference` with `_low`, `_high`, `gap_difference`; `expected` and `seen`. Also `environment`, if the table
    has that column.
    """
    table = read_table(sweep)
    cells = {str(cell["name"]): cell["overrides"] for cell in sweep.cells()}
    rows = {str(row["run"]): row for row in table.rows}
    gaps = {name: _last_gap(sweep.run(name), rows[name]) for name in rows}
    base = rows[BASE]
    compared = []
    for name, row in rows.items():
        changed = {path: value for path, value in cells[name].items() if value != cells[BASE].get(path)}
        measured = {
            "run": name,
            "changed": ", ".join(f"{axis_name(path)} {show_value(axis_value(v))}" for path, v in changed.items()),
            "state": row["state"],
            table.select.column: row[table.select.column],
            "val/loss": row["val/loss"],
            "train/loss": row["train/loss"],
            "gap": gaps[name],
            **({"environment": row["environment"]} if "environment" in row else {}),
        }
        against = _differences(sweep, table, row, base, gaps)
        seen = _sentence(measured, against, gaps[BASE], table.select) if name != BASE else None
        compared.append({**measured, **against, "expected": expected.get(name), "seen": seen})
    return compared


def _differences(
    sweep: SweepDir, table: Table, row: Row, base: Row, gaps: Mapping[str, float | None]
) -> dict[str, Any]:
    result: dict[str, Any] = dict.fromkeys(_DIFFERENCES)
    if row is base or not (table.is_comparable(row) and table.is_comparable(base)):
        return result
    found = difference_of(sweep.run(str(row["run"])), sweep.run(BASE))
    result |= {name: found[name] for name in _DIFFERENCES if name in found}
    result["difference"] = row[table.select.column] - base[table.select.column]
    # Without results per image the differences are known all the same, but not their intervals.
    for name in ("accuracy", "loss"):
        result[f"{name}_difference"] = row[f"val/{name}"] - base[f"val/{name}"]
    gap, base_gap = gaps[str(row["run"])], gaps[BASE]
    if gap is not None and base_gap is not None:
        result["gap_difference"] = gap - base_gap
    return result


def _last_gap(run: RunDir, row: Row) -> float | None:
    if row["state"] != "done":
        return None
    gaps = loss_gaps(run)
    return gaps[max(gaps)] if gaps else None


def _sentence(row: Row, against: Row, base_gap: float | None, select: Ranking) -> str:
    """What was seen, as facts, in one sentence."""
    if against["difference"] is None:
        return f"no comparison: one of the two runs has no finite result (state {row['state']})"
    parts = []
    if select.name not in ("accuracy", "loss"):
        parts.append(f"{select.column} {against['difference']:+.4f}")
    bounds = against["accuracy_low"], against["accuracy_high"]
    test = "" if against["p_value"] is None else f", McNemar p = {against['p_value']:.3g}"
    parts.append(verdict(against["accuracy_difference"], *bounds, "val accuracy") + test)
    parts.append(verdict(against["loss_difference"], against["loss_low"], against["loss_high"], "val loss"))
    if against["paired"] is False:
        parts.append(UNPAIRED)
    if row["gap"] is not None and base_gap is not None:
        parts.append(f"gap between val and train loss {row['gap']:+.3f}, base {base_gap:+.3f}")
    return f"against the base: {'; '.join(parts)}."
