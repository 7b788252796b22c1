"""The README and the pages of docs/: their commands, and which test executes them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
# Executed by tests/slurm/test_readme.py in this order: what a page needs was made by the ones before it.
ON_SLURM = (
    "README.md",
    "cluster.md",
    "local.md",
    "programs.md",
    "results.md",
    "report.md",
    "profiles.md",
    "one-machine.md",
)
# Executed by tests/test_manual.py.
IN_A_PROJECT = ("README.md", "programs.md", "own-data.md", "scripts.md")
# Beginning of a command -> why no test executes it.
NOT_RUN = {
    "make test": "the tests themselves",
    "make check": "the tests themselves",
    ".ci/run": "the tests themselves",
    "make chaos": "minutes of random faults, which tests/slurm/chaos covers",
    "make slurm-install": "changes the machine, which the tests of one_machine cover",
    "make bench": "a measurement of many minutes",
    "python -m tests.benchmarks.": "a measurement of many minutes",
    "make coverage": "a simulation of many minutes",
    'make grid SET="$PART': "hours of training on a GPU",
    'make grid CONFIG=configs/recipe.yaml SET="$PART': "hours of training on a GPU",
    "PART=": "a variable of the line below it",
    "ln -s": "changes the reader's home folder; tests/test_relay.py makes such a link",
}
_COMMAND = re.compile(r"^    ((?:make|python|eval|relay|ln|cd) \S.*|\.ci/run .*|PART=.*)$", flags=re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The commands of the page's indented blocks, in order, without options in brackets and comments."""
    # A block that begins with `$` shows what a command prints.
    text = re.sub(r"^    \$ .*\n(?:    .*\n)*", "", page.read_text(), flags=re.MULTILINE)
    return [re.sub(r"\[[^]]*\]|\s#.*", "", line).strip() for line in _COMMAND.findall(text)]


def page(name: str) -> Path:
    """The page of this file name."""
    return next(each for each in PAGES if each.name == name)


def is_of_a_project(line: str) -> bool:
    """Whether a command is typed in a folder of the user's own."""
    return line.startswith(("relay ", "cd "))


def is_run(line: str) -> bool:
    """Whether a test executes the command."""
    return not line.startswith(tuple(NOT_RUN))
