"""Writes and prints an answer: the tables, aggregate.json, the effects and the settings over their seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from src.files import replace_file
from src.results.answer import Answer
from src.results.effects_text import write_effects
from src.results.seeds import seed_rows
from src.results.table import Row
from src.results.table_files import print_table, write_rows
from src.results.terminal import print_rows


def write_answer(answer: Answer, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the rows as table.csv, .md and .parquet, aggregate.json, and effects and seeds where there are any."""
    files = write_rows(rows, folder / "table")
    files.append(folder / "aggregate.json")
    replace_file(files[-1], json.dumps(answer.to_json(rows), allow_nan=False) + "\n")
    seeds = seed_rows(answer.table)
    if seeds:
        files += write_rows(seeds, folder / "seeds", ("csv", "md"))
    if answer.effects:
        files += write_effects(answer.effects, answer.table.select, folder)
    return files


def print_answer(answer: Answer, shown: Sequence[Row]) -> None:
    """Print the rows, the settings over their seeds, and which are as good as the best."""
    if shown:
        print_table(shown, answer.table.name)
    else:
        print(f"{answer.table.name}: no row is as --where asks")
    seeds = seed_rows(answer.table)
    if seeds:
        print_rows(seeds, f"{answer.table.select.column} over the seeds")
    for line in answer.sentences():
        print(line)
