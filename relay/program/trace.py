"""What `verify` sees of a run: a digest of every object after every step. And where a trial of it pauses or dies.

Environment variables, which nothing but `verify` sets:

    RELAY_UNTIL=60         pause after so many steps, as if asked to stop; the horizon stays what it is
    RELAY_TRACE=FILE       append a line per step to this file
    RELAY_TRACE_AT=7,23    the steps that are looked at if the states are large
    RELAY_KILL_AFTER=33    kill -9 of the own process after this step
    RELAY_UNTIL_S, RELAY_KILL_AFTER_S    of a command, which may tell no step: so many seconds after its start
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# States above this are not looked at after every step.
_LARGE_BYTES = 100 * 10**6


def until() -> int:
    """The number of completed steps after which a run pauses."""
    return int(os.environ.get("RELAY_UNTIL") or sys.maxsize)


@dataclass(frozen=True)
class Moment:
    """When to interrupt a command, which does not know of it: once it has logged `step`, or after `seconds`."""

    step: int = sys.maxsize
    seconds: float = math.inf

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether a command that has logged `step`, and has run for so many seconds, is there."""
        return step >= self.step or seconds >= self.seconds


def moments() -> tuple[Moment, Moment]:
    """When the command of this attempt is stopped, and when it is killed."""

    stop_s, kill_s = (float(os.environ.get(name) or math.inf) for name in ("RELAY_UNTIL_S", "RELAY_KILL_AFTER_S"))
    return Moment(until(), stop_s), Moment(int(os.environ.get("RELAY_KILL_AFTER") or sys.maxsize), kill_s)


class Trace:
    """The trace of this attempt; does nothing if none is asked for."""

    def __init__(self) -> None:
        name = os.environ.get("RELAY_TRACE")
        self._file = Path(name) if name else None
        self._kill_after = int(os.environ.get("RELAY_KILL_AFTER") or -1)
        self._at = [int(step) for step in os.environ.get("RELAY_TRACE_AT", "").split(",") if step]
        self._is_large = False

    @property
    def is_on(self) -> bool:
        """Whether somebody looks."""
        return self._file is not None

    def note(self, step: int, states: Callable[[], Mapping[str, Any]], *, is_last: bool = False) -> None:
        """Write the digests of the states, by name, that hold after `step` steps. Large ones at the chosen steps, the
        first and the last one.
        """
        if self._file is None:
            return
        if not self._is_large or step in self._at or is_last:
            digest = _Digest()
            found = {name: digest.of(state) for name, state in states().items()}
            self._is_large = digest.hashed > _LARGE_BYTES
            self._write({"step": step, "objects": found})
        self.die_if_asked(step)

    def die_if_asked(self, step: int) -> None:
        """kill -9, if this process shall end so after `step` steps."""
        if 0 <= self._kill_after <= step:
            os.kill(os.getpid(), signal.SIGKILL)

    def warn(self, text: str) -> None:
        """Write what a run would be warned of."""
        self._write({"warning": text})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")


class _Digest:
    """Digests of states. `hashed`: how many bytes of tensors they had."""

    def __init__(self) -> None:
        self.hashed = 0

    def of(self, state: Any) -> str:
        """16 hex digits, equal for equal values. A tuple equals a list, and the order of a dict does not count."""
        found = hashlib.blake2b(digest_size=8)
        self._add(found.update, state)
        return found.hexdigest()

    def _add(self, update: Callable[[bytes], None], state: Any) -> None:
        torch = sys.modules.get("torch")
        if isinstance(state, Mapping):
            update(b"{")
            for name in sorted(state, key=repr):
                update(repr(name).encode())
                self._add(update, state[name])
        elif isinstance(state, list | tuple):
            update(b"[")
            for part in state:
                self._add(update, part)
        elif torch is not None and isinstance(state, torch.Tensor):
            whole = state.detach().cpu().contiguous()
            size = whole.numel() * whole.element_size()
            self.hashed += size
            update(f"{whole.dtype} {tuple(whole.shape)}".encode())
            # Not through numpy, which knows no bfloat16 and may be missing.
            update(ctypes.string_at(whole.data_ptr(), size) if size else b"")
        else:
            update(f"{type(state).__name__} {state!r}".encode())
        update(b",")
