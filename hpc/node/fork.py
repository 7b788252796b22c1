"""Executes runs in forks of a process that has imported once what they need.

A fork starts in milliseconds, where a new process imports torch for seconds; and whatever happens to it, a crash or a
kill, its parent and the other runs do not notice. It ends with its parent. The parent must not start a thread or touch
a GPU: neither survives a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hpc.recovery.diagnosis import StopRequest
from hpc.works import work_of
from relay.errors import RelayError
from relay.log import log
from relay.runs import records
from relay.runs.attempt import unfinished_attempt
from relay.runs.lifecycle import close_orphaned_attempt
from relay.runs.memory import memory_kills
from relay.runs.rundir import RunDir
from relay.work import Work

POLL_S = 0.02
_LOCK_WAIT_S = 5.0
_STATE_BYTES = 64
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def import_once(work: Work) -> None:
    """Import and build what runs of the work need, so that forks of this process have it."""
    work.preload()
    for schema in (records.CELL, records.ATTEMPT, records.OWNER):
        schema.build()
    # Otherwise the garbage collector of each fork writes to, and so copies, the pages of all imported objects.
    gc.freeze()


def fork(work: Callable[[], Any]) -> int:
    """Do `work` in a fork of this process, which then exits: with 0, with the code of a SystemExit, or with 1 after
    printing a traceback. Returns its process id.

    The fork has the signal handlers of this process. The kernel kills it when the thread that called this ends.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # Python forgets the signals that reach a new fork before os.fork has returned there.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid:
        return pid
    code: Any = 1
    try:
        end_with(parent)
        work()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Tearing down torch takes longer than a run of the tests.
        os._exit(code if isinstance(code, int) else 1)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends: the parent's job is over then, and its slice may be
    another job's. No signal handler of the parent could do it after a `kill -9`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # It may have ended before the call.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Forks:
    """Executes runs in forks, `at_once` at a time. Every signal that `stop` notes is forwarded to all of them.

    `execute` executes one run, in its fork, and returns its state.
    """

    def __init__(self, at_once: int, execute: Callable[[RunDir], str], stop: StopRequest) -> None:
        self._at_once, self._execute, self._stop = at_once, execute, stop
        self._active: dict[int, tuple[RunDir, mmap.mmap]] = {}
        self._forwarded = 0
        self._memory_kills = memory_kills()

    def run_all(self, runs: Sequence[RunDir]) -> dict[str, str]:
        """Execute the runs until all have ended, or until a stop is requested. Returns the state of each by its
        label, FAILED for one whose process died.
        """
        for kind in dict.fromkeys(run.sweep().kind for run in runs if not run.is_done()):
            import_once(work_of(kind))
        states, waiting = dict[str, str](), deque(runs)
        while self._active or (waiting and not self._stop.requested()):
            while waiting and len(self._active) < self._at_once and not self._stop.requested():
                self._start(waiting.popleft())
            self._forward()
            for pid, (run, state) in list(self._active.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._active[pid]
                    code = os.waitstatus_to_exitcode(status)
                    states[run.label] = state[:].rstrip(b"\0").decode() or self._close_lost(run, pid, code)
            time.sleep(POLL_S)
        return states

    def _start(self, run: RunDir) -> None:
        # Shared with the fork. Unlike a pipe, it cannot block, whoever inherits it.
        state = mmap.mmap(-1, _STATE_BYTES)
        self._active[fork(lambda: state.write(self._execute(run).encode()))] = run, state

    def _forward(self) -> None:
        for number in self._stop.signals[self._forwarded :]:
            self._forwarded += 1
            for pid in self._active:
                os.kill(pid, number)

    def _close_lost(self, run: RunDir, pid: int, code: int) -> str:
        """Record why the process of a run ended that could not do so itself. `code`: its exit code or minus the signal.

        Accounting knows only how the task ends.
        """
        if run.is_done():
            return "DONE"
        cause = "CRASHED"
        if code == -signal.SIGKILL:
            cause = "OUT_OF_MEMORY" if memory_kills() > self._memory_kills else "KILLED"
            self._memory_kills += cause == "OUT_OF_MEMORY"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.error(f"{run.label}: its process ended with {how}: {cause}")
        # If another process has the lock, it closes the attempt.
        with contextlib.suppress(RelayError, OSError), run.lock(_LOCK_WAIT_S):
            orphan = unfinished_attempt(run.attempts())
            if orphan and orphan.pid == pid:
                close_orphaned_attempt(run, lambda _: (cause, round(time.time(), 3)))
        return "FAILED"
