"""Simulates how often the statements about results are right, and writes the tables into docs/statistics.md.

    python -m tests.benchmarks.coverage [--only NAME] [--replications 1000] [--seed 0] [--processes 2] [--write]

Each row is a claim in a situation whose truth is known, simulated in a probit model and judged by the code of
relay/results. Exit code 1 if a claim misses its level: a nominal 95 covers less than 93, a nominal 5 errs more than 7
times in 100. The same seed gives the same table.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tests.benchmarks.coverage_row import Outcome, Row, Tally, replicate, shared

DOCUMENT = Path("docs/statistics.md")
# Each is a module of this package with ROWS.
PARTS = ("best_set", "winner", "effects", "seeds", "evaluation")
HEAD = ["claim", "situation", "nominal", "simulated", "width", "bias"]
# Several for each row, so that both processes are busy until the end.
_CHUNK = 125


def rows_of_part(part: str) -> Sequence[Row]:
    """The rows of a part of the table."""
    rows: Sequence[Row] = importlib.import_module(f"tests.benchmarks.coverage_{part}").ROWS
    return rows


def chunk_of(part: str, place: int, count: int, seed: int) -> list[list[Outcome]]:
    """`count` replications of the rows that share them; `place`: of the first among all rows of the part."""
    rows = next(group for group in shared(rows_of_part(part)) if group[0] is rows_of_part(part)[place])
    return replicate(rows, np.random.default_rng([seed, zlib.crc32(rows[0].situation.encode()), place]), count)


def tallies(part: str, replications: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[Tally]:
    """The rows of a part with what their replications found, in order."""
    sizes = [min(_CHUNK, replications - start) for start in range(0, replications, _CHUNK)]
    work, place = [], 0
    for group in shared(rows_of_part(part)):
        # Each chunk has its own stream, so the number of processes changes nothing.
        chunks = [pool.submit(chunk_of, part, place, size, seed * 1000 + n) for n, size in enumerate(sizes)]
        work.append((group, chunks))
        place += len(group)
    for group, chunks in work:
        found = [chunk.result() for chunk in chunks]
        for number, row in enumerate(group):
            yield Tally(row, [outcome for chunk in found for outcome in chunk[number]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT}")
    asked = parser.parse_args()
    # The matrices are small: threads of the linear algebra would only wait for each other.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    missed = 0
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        for part in asked.only or PARTS:
            begun, lines = time.perf_counter(), [HEAD, ["---", "---", "---:", "---:", "---:", "---:"]]
            for tally in tallies(part, asked.replications, asked.seed, pool):
                lines.append(tally.cells())
                missed += tally.missed
                print(f"| {' | '.join(lines[-1])} |", flush=True)
            minutes = (time.perf_counter() - begun) / 60
            print(f"{part}: {minutes:.1f} minutes", flush=True)
            if asked.write:
                write_part(part, lines, asked.replications, asked.seed)
    return 1 if missed else 0


def write_part(part: str, lines: Sequence[Sequence[str]], replications: int, seed: int) -> None:
    """Replace the table of a part in the document."""
    from tests.benchmarks.table import write_into

    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    text = f"{replications:,} replications a row, seed {seed}.\n\n{table}\n"
    write_into(DOCUMENT, part, text, by="make coverage")


if __name__ == "__main__":
    sys.exit(main())
