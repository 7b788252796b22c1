"""The files of a comparison: compare.csv, compare.md, compare.json and compare.png of its sweep.

compare.json holds {sweep, select, base, rows, note}; each row is one of `compare_variants`, and compare.csv and
compare.md are the same rows. An unknown value is null, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.config.yaml_file import json_text
from relay.files import replace_file
from relay.results.tables.table import Row, Table
from relay.results.tables.table_files import csv_of, markdown
from relay.runs.rundir import SweepDir
from src.config.loading import make_config
from src.config.schema import Variant
from src.config.validation import BASE
from src.outcomes.variant_figure import draw_variants
from src.outcomes.variants import compare_variants

NOTE = (
    "Differences are variant minus base, of the best epoch of each, on val. `estimate` leaves out the luck of having "
    "chosen the epochs on this data, where the runs have crossed predictions; `low` and `high` are its 95 % interval. "
    "The interval and `p_adjusted` are corrected for the number of variants (Holm): `p_adjusted` is below "
    "0.05 exactly where the interval excludes 0. The other metrics are described, without a correction. Intervals are "
    "paired over the examples, unless the two were measured on different ones. With one seed per variant, all of this "
    "is about these networks on new data; another seed may change it. The gap is val loss minus train loss at the last "
    "epoch; the train loss is a mean over the epoch, with augmentation if there is any."
)


def planned_variants(sweep: SweepDir) -> Mapping[str, Variant]:
    """The variants with which a comparison was planned, by name."""
    return make_config(sweep.meta()["config"], str(sweep.meta_file)).compare.variants


def write_comparison(sweep: SweepDir, table: Table, expected: Mapping[str, str | None]) -> tuple[list[Row], list[Path]]:
    """Write compare.csv, compare.md, compare.json and compare.png of a sweep; returns the rows and the paths."""
    rows, select = compare_variants(sweep, table, expected), table.select
    answer = {"sweep": sweep.name, "select": select.column, "base": BASE, "rows": rows, "note": NOTE}
    contents = {
        "compare.csv": csv_of(rows),
        "compare.md": f"{markdown(rows)}\n{NOTE}\n",
        "compare.json": json_text(answer),
    }
    files = [sweep.results_file(name) for name in contents]
    for path, content in zip(files, contents.values(), strict=True):
        replace_file(path, content)
    figure = draw_variants(sweep, select.column, sweep.figure("compare"))
    return rows, [*files, *([figure] if figure else [])]
