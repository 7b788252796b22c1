"""The watcher of processes sees what it is there for."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.frameworks.watcher import Watcher, continue_once_told, pid_of

SCRIPT = "import multiprocessing, time\nif __name__ == '__main__':\n"
WITH_A_WORKER = (
    SCRIPT
    + "    multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)).start()\n    time.sleep(60)\n"
)


def start(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "train.py").write_text(WITH_A_WORKER)
    return subprocess.Popen([sys.executable, "train.py"], cwd=folder, process_group=0)


def wait_for_child(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text().strip():
        time.sleep(0.01)


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=False)
        process.wait()


@pytest.mark.parametrize("rest", ["none", "a second process", "a worker of the first one"])
def test_two_processes_of_one_run_are_seen(tmp_path: Path, rest: str) -> None:
    with Watcher(tmp_path, "train.py") as watcher:
        first = start(tmp_path)
        wait_for_child(first)
        if rest == "none":
            end(first)
        elif rest == "a worker of the first one":
            first.kill()
            first.wait()
        second = start(tmp_path)
        wait_for_child(second)
        looks = watcher.looks
        while watcher.looks < looks + 2:
            time.sleep(0.01)
        assert pid_of(tmp_path, "train.py") in (first.pid, second.pid)
        end(first, second)
    assert watcher.seen[tmp_path] >= {second.pid}
    expected = [] if rest == "none" else [(tmp_path, {first.pid, second.pid})]
    assert watcher.together[:1] == expected


def test_a_stopped_script_continues_once_it_is_told(tmp_path: Path) -> None:
    code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint()\nsignal.pause()"
    with subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        thread: threading.Thread = continue_once_told(process.pid, 30)
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == 7
        thread.join()
