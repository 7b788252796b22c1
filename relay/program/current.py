"""The run of this process, for code that is not given it: `relay.current()`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from relay.errors import RelayError
from relay.program.contract import ORDER_VARIABLE, Order, read_order
from relay.program.run import Run

_current: Run | None = None
_is_planned = False


def use(run: Run) -> None:
    """Make `run` that of this process."""
    global _current
    _current = run


def plan_only() -> None:
    """Let `current` fail: this process plans runs, and executes none."""
    global _is_planned
    _is_planned = True


def current() -> Run:
    """The run of this process, which a function of Relay's or a command has begun. Outside of Relay, a stand-in that
    logs and saves into a new folder `relay_alone_…` here, so that the same file also runs alone.
    """
    if _is_planned:
        raise RelayError("relay.current(): call it in the function: the module is imported where runs are planned, too")
    if _current is None:
        # In a process that a command has started, or alone.
        order = os.environ.get(ORDER_VARIABLE)
        use(Run(read_order(Path(order)) if order else _order_alone()))
    assert _current is not None
    return _current


def _order_alone() -> Order:
    folder = Path(tempfile.mkdtemp(prefix="relay_alone_", dir=Path.cwd()))
    print(f"relay: this program runs alone; its metrics and states are in {folder}", file=sys.stderr)
    here, checkpoints = str(Path.cwd()), folder / "checkpoints"
    checkpoints.mkdir()
    return Order(
        function="",
        params={},
        label=folder.name,
        key="",
        attempt=1,
        token="",
        root=here,
        folder=here,
        work=here,
        reports=str(folder / "program.jsonl"),
        metrics=str(folder / "metrics.jsonl"),
        checkpoints=str(checkpoints),
        best=str(checkpoints / "best.ckpt"),
        owner="",
        select="",
        direction="min",
    )
