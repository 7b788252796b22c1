"""Asks another process a question, in JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LINES_SHOWN = 3


def ask(
    command: Sequence[str], question: Any, *, folder: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[Any, str]:
    """The answer of a command, which is executed in `folder`; or None, and why there is none.

    The command reads the question as JSON from stdin, and writes the answer as JSON to the file that is added to its
    arguments: what it prints does not disturb that. Raises OSError if it cannot be executed, subprocess.TimeoutExpired
    after `timeout_s` seconds.
    """
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        done = subprocess.run(
            [*command, str(answer)],
            cwd=folder,
            env=environment,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        with contextlib.suppress(OSError, ValueError):
            return json.loads(answer.read_text()), ""
    return None, (" / ".join(done.stderr.strip().splitlines()[-_LINES_SHOWN:]) or f"it ended with {done.returncode}")[
        -1000:
    ]
