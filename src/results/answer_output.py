"""Writes and prints an answer: the tables, aggregate.json, the effects and the settings over their seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from src.files import replace_file
from src.results.answer import Answer
from src.results.effects_files import write_effects
from src.results.statements import Say, english
from src.results.tables.table import Row
from src.results.tables.table_files import print_table, write_rows
from src.results.tables.terminal import print_rows


def write_answer(answer: Answer, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the rows as table.csv, .md and .parquet, aggregate.json, and effects and seeds where there are any."""
    files = write_rows(rows, folder / "table")
    files.append(folder / "aggregate.json")
    replace_file(files[-1], json.dumps(answer.to_json(rows), allow_nan=False) + "\n")
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
