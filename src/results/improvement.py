"""What a second grid found against the first one (M8 of the report): the best of one minus the best of the other."""

from __future__ import annotations

from typing import Any

from src.results.pairs import UNPAIRED, difference_of, told, verdicts
from src.results.table import read_table
from src.runs.rundir import SweepDir


def improvement(refined: SweepDir, first: SweepDir) -> dict[str, Any] | None:
    """The best cell of `refined` minus that of `first`; None while one of them has no finished cell.

    Keys: `first`, `refined` ({sweep, run, value, epochs}), `metric`, `difference` (of the best values), `estimate`,
    `low` and `high` (95 %, over the images of val, corrected for the choice of the epochs where `crossed`; None without
    results per image), `paired` (whether both are of the same images), `sentence`.
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
    found = difference_of(refined.run(str(best[1]["run"])), first.run(str(best[0]["run"])), select.name)
    (verdict,) = verdicts([found])
    unequal = "" if sides[0]["epochs"] == sides[1]["epochs"] else " The two also differ in their epochs."
    seen = told(select.column, difference, found, verdict)
    # Each is the best of many, so each value is too high. Simulated for 4 to 48 cells that are equally good, the
    # interval covered the difference of these networks in 94 to 100 %.
    seen += ", and both were selected for their values" if verdict else ""
    seen += f" ({UNPAIRED})" if found and not found.paired else ""
    sentence = (
        f"best of {refined.name} ({sides[1]['run']}, {sides[1]['epochs']:g} epochs) minus best of {first.name} "
        f"({sides[0]['run']}, {sides[0]['epochs']:g} epochs): {seen}.{unequal}"
    )
    return {
        "first": sides[0],
        "refined": sides[1],
        "metric": select.column,
        "difference": difference,
        "estimate": found.value if found and verdict else None,
        "low": verdict.low if verdict else None,
        "high": verdict.high if verdict else None,
        "crossed": bool(found and found.crossed),
        "paired": found.paired if found else None,
        "sentence": sentence,
    }
