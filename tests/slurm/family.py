"""A supervisor with children that it starts in several ways. Each process records the signals that it gets.

`python family.py FOLDER supervisor [--quiet]` writes FOLDER/NAME.pid for each process once it is ready for signals, and
a line in FOLDER/NAME.signals for each signal. `--quiet`: the children do not keep the output of the supervisor open.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

LIFE_S = 300.0  # a family that nobody ends


def main(folder: Path, name: str, *options: str) -> None:
    def record(number: int, _frame: FrameType | None) -> None:
        with (folder / f"{name}.signals").open("a") as file:
            file.write(f"{signal.Signals(number).name}\n")

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, record)
    if name == "supervisor":
        start_children(folder, subprocess.DEVNULL if "--quiet" in options else None)
    write_pid(folder, name, os.getpid())
    deadline_s = time.monotonic() + LIFE_S
    while time.monotonic() < deadline_s:
        time.sleep(1)


def start_children(folder: Path, output: int | None) -> None:
    """Among them `bash` and `timeout`, which have no handler for SIGUSR2, and a child of each."""
    commands = {name: [*own_command(), str(folder), name] for name in ("child", "session", "env")}
    commands["env"] = ["env", "A=1", *commands["env"]]
    commands["bash"] = ["bash", "-c", f"{shlex.join([*own_command(), str(folder), 'in_bash'])}; sleep 0"]
    commands["timeout"] = ["timeout", f"{LIFE_S:.0f}", *own_command(), str(folder), "in_timeout"]
    for name, command in commands.items():
        child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=name == "session")
        if name in ("bash", "timeout"):
            write_pid(folder, name, child.pid)


def own_command() -> list[str]:
    return [sys.executable, "-I", "-S", __file__]


def write_pid(folder: Path, name: str, pid: int) -> None:
    """In one step, so that a reader never sees half of it."""
    fresh = folder / f"{name}.new"
    fresh.write_text(str(pid))
    fresh.rename(folder / f"{name}.pid")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
