"""What a second grid found against the first one (M8 of the report): the best of one minus the best of the other."""

from __future__ import annotations

from typing import Any

from src.results.pairs import UNPAIRED, difference_of, verdict
from src.results.table import read_table
from src.runs.rundir import SweepDir


def improvement(refined: SweepDir, first: SweepDir) -> dict[str, Any] | None:
    """The best cell of `refined` minus that of `first`; None while one of them has no finished cell.

    Keys: `first`, `refined` ({sweep, run, value, epochs}), `metric`, `difference`, `low` and `high` (95 %, over the
    images of val; None without results per image, or if the metric is neither accuracy nor the loss), `paired` (whether
    both are of the same images), `sentence`.
    """
    tables = read_table(first), read_table(refined)
    best = [table.best() for table in tables]
    if best[0] is None or best[1] is None:
        return None
    select = tables[1].select
    sides = [
        {"sweep": table.name, "run": row["run"], "value": row.get(select.column), "epochs": row["epochs"]}
        for table, row in zip(tables, best, strict=True)
        if row is not None
    ]
    if sides[0]["value"] is None:
        return None
    difference = sides[1]["value"] - sides[0]["value"]
    found = difference_of(refined.run(str(best[1]["run"])), first.run(str(best[0]["run"])))
    low, high = found.get(f"{select.name}_low"), found.get(f"{select.name}_high")
    unequal = "" if sides[0]["epochs"] == sides[1]["epochs"] else " The two also differ in their epochs."
    seen = verdict(difference, low, high, select.column)
    seen += f" ({UNPAIRED})" if found["paired"] is False else ""
    sentence = (
        f"best of {refined.name} ({sides[1]['run']}, {sides[1]['epochs']:g} epochs) minus best of {first.name} "
        f"({sides[0]['run']}, {sides[0]['epochs']:g} epochs): {seen}.{unequal}"
    )
    return {
        "first": sides[0],
        "refined": sides[1],
        "metric": select.column,
        "difference": difference,
        "low": low,
        "high": high,
        "paired": found["paired"],
        "sentence": sentence,
    }
