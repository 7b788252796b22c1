"""Runs a command in a pseudo-terminal that a test can close like a window."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.conftest import ROOT, command_environment

# The command leads a session whose controlling terminal is its stdin. SIGHUP is restored: nohup ignores it.
_IN_A_SESSION = "import fcntl, os, signal, sys, termios; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
_IN_A_SESSION += "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
_IN_A_SESSION += "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"


class Terminal:
    """`python -m words...` in a terminal. `close` closes the terminal and does not stop the process."""

    def __init__(self, *words: str, cwd: Path = ROOT) -> None:
        self._master, slave = os.openpty()
        command = [sys.executable, "-c", _IN_A_SESSION, *words]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=command_environment(None), stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while os.read(self._master, 65536):
                pass  # Without a reader the buffer of the terminal fills up, and the command blocks.
        except OSError:
            return

    def close(self) -> None:
        """Close the window: the kernel sends SIGHUP, and whatever writes to the terminal gets an error."""
        os.close(self._master)
