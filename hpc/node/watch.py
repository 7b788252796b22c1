"""What watching a program is, whatever it executes: look at it, ask it to stop, kill it in time, judge its end."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable

from hpc.node.child import Child
from relay.log import log
from relay.progress import Reporter, StopCheck
from relay.runs.lifecycle import AttemptError, Outcome
from relay.runs.memory import memory_kills, note_children
from relay.runs.rundir import RunDir

_POLL_S = 0.05
_LOOK_EVERY_S = 1.0
# A process that ends by a signal may have had it from SLURM, whose signal for this one is on its way.
_OWN_SIGNAL_S = 2.0


class Watch(abc.ABC):
    """What is known about a program while it runs.

    `seconds_left`: after a stop, how long the program may take to answer. Its methods raise AttemptError with the cause
    if the program ended otherwise than done or stopped.
    """

    def __init__(
        self, run: RunDir, should_stop: StopCheck, reporter: Reporter, seconds_left: Callable[[], float]
    ) -> None:
        self._run, self._reporter = run, reporter
        self._should_stop, self._seconds_left = should_stop, seconds_left
        self._asked_at: float | None = None
        self._killed = False
        self._memory_kills = memory_kills()
        self._looked_at = 0.0

    def until_end(self, child: Child) -> Outcome:
        """Watch the program to its end. Nothing of it runs any more when this returns or raises."""
        while self._goes_on(child):
            child.pass_on()
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = now
                self._look(child)
            self._stop_if_asked(child, now)
            time.sleep(_POLL_S)
        child.end()
        self._look(child)
        self._close(child)
        # Raises if another process has taken the run over: then nothing more is written.
        self._run.check_owner()
        return self._outcome(child)

    def _goes_on(self, child: Child) -> bool:
        """Whether the program has not ended."""
        return child.is_alive()

    def _look(self, child: Child) -> None:
        """Read on what the program has written."""
        note_children(child.memory_mb())

    @abc.abstractmethod
    def _tell(self, child: Child) -> None:
        """Ask the program to save and end."""

    @abc.abstractmethod
    def _close(self, child: Child) -> None:
        """Read the rest of what the program has written."""

    @abc.abstractmethod
    def _outcome(self, child: Child) -> Outcome:
        """How it ended."""

    @abc.abstractmethod
    def _resumes_from(self) -> str:
        """Where the next attempt will begin."""

    def _has_answered(self) -> bool:
        """Whether it has said that it ends, and needs only to exit."""
        return False

    def _stop_if_asked(self, child: Child, now: float) -> None:
        owner = self._run.owner
        if owner and owner.lost:
            child.kill()
        elif self._asked_at is None:
            if self._should_stop():
                self._asked_at = now
                self._look(child)
                self._tell(child)
        elif not self._killed and not self._has_answered() and self._seconds_left() <= 0:
            self._killed = True
            child.kill()
            log.warning(
                f"{self._run.label}: stopped {now - self._asked_at:.0f} s after it was asked and did not answer; "
                f"killed; {self._resumes_from()}"
            )

    def _was_asked(self, code: int) -> bool:
        """Whether the end with this code is one of a stop."""
        if self._asked_at is None and not self._should_stop() and (code < 0 or self._may_be_of_a_signal(code)):
            deadline = time.monotonic() + _OWN_SIGNAL_S
            while not self._should_stop() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        return self._asked_at is not None or self._should_stop()

    @staticmethod
    def _may_be_of_a_signal(code: int) -> bool:
        # Shells and others that stand before a program turn an end by a signal into this.
        return code > 128

    def _killed_error(self) -> AttemptError:
        """For a program that was killed by something else."""
        cause = "OUT_OF_MEMORY" if memory_kills() > self._memory_kills else "KILLED"
        return AttemptError(cause, "its process was killed")
