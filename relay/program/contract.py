"""What the process of a program and its supervisor agree on: the order down, the reports up.

The supervisor writes an `Order` to a file, and starts `python -m relay.program.call FILE`. The program appends one line
per event to the order's `reports` file, which the supervisor reads on. There is no pipe between the two, because what
stands before the program's Python (uv, apptainer, a shell) may close it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from relay.errors import TakenOverError
from relay.files import append_lines, read_json, replace_file

# Where a command finds the order, for `relay.current()` in the processes that it starts.
ORDER_VARIABLE = "RELAY_ORDER"


@dataclass(frozen=True)
class Order:
    """One attempt at a run, for its program.

    `function`: `module:name`; "" in a command, of which several processes may log to `metrics`, one after the other.
    `params`: as given, by name. `key`: of the run's identity; a state of another one is not
    used. `attempt`: its number, from 1. `token`: that of the supervisor in the run's owner file.

    `root` is the user's project, `folder` holds what is frozen of it, `work` is the run's own current folder. `select`
    and `direction`: the metric that is best when it is max or min. `every_steps`, `every_minutes`, `keep`: when states
    are saved, how many stay.
    """

    function: str
    params: Mapping[str, Any]
    label: str
    key: str
    attempt: int
    token: str
    root: str
    folder: str
    work: str
    reports: str
    metrics: str
    checkpoints: str
    best: str
    owner: str
    select: str
    direction: Literal["min", "max"]
    every_steps: int | None = None
    every_minutes: float | None = 5.0
    keep: int = 2
    deterministic: bool = True

    def write(self, path: Path) -> None:
        """Write it to a file for the program."""
        replace_file(path, json.dumps(asdict(self), indent=2))

    def check_owner(self) -> None:
        """Raise TakenOverError if another process has taken the run over since."""
        owner = read_json(Path(self.owner)) if self.token else None
        if owner and owner["token"] != self.token:
            raise TakenOverError(f"{self.label}: another process has taken over this run; this one writes nothing more")

    def report(self, event: str, **facts: Any) -> None:
        """Tell the supervisor. Durable when it returns. Raises DiskError if the disk refuses it."""
        line = {"attempt": self.attempt, "event": event, "pid": os.getpid(), "time": round(time.time(), 3), **facts}
        append_lines(Path(self.reports), [line], check=self.check_owner)


def read_order(path: Path) -> Order:
    """The order in a file."""
    return Order(**json.loads(path.read_text()))
