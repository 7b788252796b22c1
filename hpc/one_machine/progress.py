"""What the commands tell a person while they work; stdout is for the shell that evaluates it."""

from __future__ import annotations

import sys


def report(line: str) -> None:
    """Progress and problems go to stderr."""
    print(line, file=sys.stderr, flush=True)
