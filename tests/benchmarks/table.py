"""Pairs of measurements, side by side, and the table in docs/performance.md that is written from them."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

BEGIN, END = "<!-- begin: written by {}, {} -->", "<!-- end: written by {}, {} -->"


@dataclass(frozen=True)
class Row:
    """One line of the table: what we measured and what it is compared with, in `unit`, pair by pair.

    Where `unit` is a time, the ratio is ours / theirs and small is good; otherwise large is good.
    """

    what: str
    against: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: str

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, of each pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def cells(self) -> list[str]:
        """The row of the table in Markdown."""
        ratios = self.ratios
        spread = f"{_number(min(ratios))} to {_number(max(ratios))}"
        sides = [f"{_number(statistics.median(side))} {self.unit}" for side in (self.ours, self.theirs)]
        return [
            self.what,
            sides[0],
            f"{self.against}: {sides[1]}",
            _number(statistics.median(ratios)),
            spread,
            self.target,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the median ratio."""
        return {**asdict(self), "ratio": statistics.median(self.ratios)}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes once."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turn(sides: Mapping[str, Callable[[], float]], pairs: int) -> dict[str, list[float]]:
    """What each side measured: all are called in turn, `pairs` times, after once for warming up."""
    for side in sides.values():
        side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        for name, side in sides.items():
            found[name].append(side())
    return found


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in a line."""
    cores, versions = len(os.sched_getaffinity(0)), f"torch {torch.__version__}, Python {platform.python_version()}"
    name = _cpu_name() if device.type != "cuda" else torch.cuda.get_device_name()
    return f"{name}, {cores} CPU cores, {versions}, {datetime.date.today():%d %B %Y}"


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_markdown(rows: Iterable[Row], title: str, command: str) -> str:
    """The table, with the machine and the command above it."""
    head = ["what", "Relay", "against", "ratio", "of the pairs", "target"]
    lines = [head, ["---", "---:", "---", "---:", "---", "---"], *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{title}\n\n    {command}\n\n{table}\n"


def write_into(path: Path, kind: str, text: str, by: str = "make bench") -> None:
    """Replace the table that the command `by` wrote for this kind of device, or part, in a Markdown file; at the end if
    it has none yet.
    """
    begin, end = BEGIN.format(by, kind), END.format(by, kind)
    content = path.read_text()
    before, found, rest = content.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    path.write_text(f"{before.rstrip()}\n\n{begin}\n\n{text}\n{end}{after}")
