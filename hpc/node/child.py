"""A process of a program: its output passed on line by line, and the end of it and of all that it has started."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from hpc.processes import children, command_line, descendants, environment_of, listener, pids
from relay.errors import ConfigError

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 65536
_LINES_KEPT = 5
# What says nothing without the lines around it.
_OF_TRACEBACKS = re.compile(r"Traceback \(most recent call last\):|[~^ ]+$")
# A longer line without an end is passed on in parts.
_LONGEST_LINE = 2**20
# How long processes may take to be gone after SIGKILL: one that waits for a disk takes longer.
_GONE_S = 10.0


class Child:
    """A process with these environment variables, in a group of its own. `locks`: descriptors that it inherits.

    `ignores_warning`: SLURM's own warning, SIGUSR2, does not reach it. Raises ConfigError, whose message begins with
    `key`, if the command cannot be executed.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        locks: Sequence[int],
        *,
        key: str = "program.python",
        ignores_warning: bool = True,
    ) -> None:
        # Orphans below become children of this process, which can then end them.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._before = descendants([os.getpid()])
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=locks,
                process_group=0,
                preexec_fn=functools.partial(_in_child, ignores_warning),
            )
        except OSError as error:
            raise ConfigError(f"{key}: {command[0]} cannot be executed: {error.strerror}") from None
        self.code = 0
        # The last lines of its stderr: what it says of an end that it could not report.
        self.last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._parts: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        for source, target in ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)):
            assert source
            os.set_blocking(source.fileno(), False)
            self._selector.register(source, selectors.EVENT_READ, target)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def is_alive(self) -> bool:
        """Whether the process itself has not ended."""
        return self._process.poll() is None

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the process alone: a loader's worker would die of it, and its program with it.

        To the process `pid`, if it is one that the process has started: a shell before the program would end, and leave
        it running.
        """
        with contextlib.suppress(ProcessLookupError):
            if pid in descendants([os.getpid()]):
                os.kill(int(pid or 0), number)
            else:
                self._process.send_signal(number)

    def tell(self, number: int) -> None:
        """Send a signal to the script: the first process from this one down that catches it, or this one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.listener(number) or self._process.pid, number)

    def listener(self, number: int) -> int | None:
        """The process that gets a signal for the script: see hpc/processes.py. None if none catches it.

        Where the first process has ended, what it had started belongs to this one.
        """
        own = sorted(set(children(os.getpid())) - self._before, key=lambda pid: (pid != self._process.pid, pid))
        return next(filter(None, (listener(pid, number) for pid in own)), None)

    def left_behind(self) -> list[str]:
        """The command lines of what the process has started and has not waited for."""
        lines = (" ".join(command_line(pid)) for pid in sorted(descendants([os.getpid()]) - self._before))
        return [line for line in lines if line and "multiprocessing" not in line]

    @property
    def exit_code(self) -> int | None:
        """That of the process; None while it is alive."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        self.send(signal.SIGKILL)

    def end(self) -> None:
        """Wait until the process has ended, which was killed or exits by itself, and end all that it has started."""
        if self.is_alive():
            self.kill()
        self.code = self._process.wait()
        deadline = time.monotonic() + _GONE_S
        while (left := descendants([os.getpid()]) - self._before) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                # Those that were adopted are ended for good once their end is read.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)
        self.pass_on()
        for target, rest in ((sys.stdout, self._parts.pop(1, b"")), (sys.stderr, self._parts.pop(2, b""))):
            if rest:
                _write(target, rest + b"\n")

    def pass_on(self) -> None:
        """Print the complete lines that the process has printed since."""
        for key, _ in self._selector.select(0):
            source: IO[bytes] = key.fileobj  # type: ignore[assignment]
            number = 1 if source is self._process.stdout else 2
            read = b""
            # Not more at once than a pipe holds many times: a program that only prints must not keep its supervisor.
            for _ in range(64):
                try:
                    part = os.read(source.fileno(), _READ_BYTES)
                except BlockingIOError:
                    break
                if not part:
                    self._selector.unregister(source)
                    break
                read += part
            *lines, rest = (self._parts.get(number, b"") + read).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            self._parts[number] = rest
            if lines:
                _write(key.data, b"\n".join(lines) + b"\n")
                said = [line for line in lines[-1000:] if line.strip()] if number == 2 else []
                texts = [line.decode(errors="replace").strip()[:500] for line in said]
                self.last_lines += [text for text in texts if not _OF_TRACEBACKS.match(text)]

    def memory_mb(self) -> int:
        """What the process and those below it hold of the memory now, in MiB."""
        pages = 0
        for pid in descendants([os.getpid()]) - self._before:
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def end_processes_with(variable: str, value: str) -> None:
    """Kill the processes of this machine whose environment says so, and wait until they are gone.

    A supervisor that is killed leaves what its program has started in a session of its own, or through a launcher. Such
    a process may not have inherited the run lock.
    """
    entry = f"{variable}={value}".encode()
    deadline = time.monotonic() + _GONE_S
    while (left := [pid for pid in pids() if entry in environment_of(pid)]) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _in_child(ignores_warning: bool) -> None:
    """Between fork and exec. Nothing here allocates much or takes a lock."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # SLURM's warning goes to all processes of a task at some sites. This program is told by its supervisor, perhaps by
    # this very signal: a shell cannot catch one that is ignored when it starts.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN if ignores_warning else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _write(target: object, text: bytes) -> None:
    # The log may be on a full disk, or its reader gone: that ends no run.
    with contextlib.suppress(OSError, ValueError):
        print(text.decode(errors="replace"), end="", file=target, flush=True)  # type: ignore[call-overload]
