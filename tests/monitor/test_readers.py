"""Looking at runs without permission to write: another user, who is nobody here, and disks without flock."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor.status_rows import sweep_status
from relay.config import yaml_file
from relay.runs.ownership import SILENCE_S
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of
from src.config.schema import Config
from src.requests import train_request
from tests.conftest import ROOT, command_environment

NOBODY = 65534
HOLD = """
import sys, time
from pathlib import Path
from relay.runs.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
run.record_attempt(1, start=time.time(), node="elsewhere", pid=1)
with run.lock(), run.owned():
    print("held", flush=True)
    sys.stdin.read()
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def shared(small: Callable[..., Config], tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may read: the experiment and one run."""
    folder = Path("/tmp") / f"relay-readers-{os.getpid()}"
    before = os.umask(0o022)
    folder.mkdir()
    config = small(**{f"paths__{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")})
    (folder / "small.yaml").write_text(yaml_file.dump_yaml(config.to_dict()))
    open_sweep(train_request(config))
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


@pytest.fixture
def run(shared: Path) -> RunDir:
    return RunDir(next(path.parent for path in shared.glob("runs/*/*/config.yaml")))


def status_of_nobody(shared: Path, *words: str) -> str:
    """What the status command shows to another user, who may read all of it and write nothing."""
    code = (
        f"import os, sys; sys.argv = {['launch', 'status', '--config', str(shared / 'small.yaml'), *words]!r}\n"
        f"import hpc.launch, hpc.monitor.status, hpc.submission.submit, src.config.loading\n"
        f"import rich.console, rich.live, rich.table\n"
        f"from hpc.launch import app, run_app\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"run_app(app)"
    )
    env = command_environment({"HOME": "/nonexistent"})
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_user_sees_a_killed_run_as_killed_and_the_watch_ends(
    run: RunDir, shared: Path, holder: subprocess.Popen[str]
) -> None:
    assert "1 run: 1 running" in status_of_nobody(shared)
    holder.kill()
    holder.wait()
    assert "1 run: 1 killed" in status_of_nobody(shared, "--watch")


def test_a_watch_into_a_pipe_shows_each_page_as_it_is_made(
    run: RunDir, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc.monitor import status as inspection

    pages: list[str] = []

    def sleep(seconds: float) -> None:
        pages.append(capsys.readouterr().out)
        holder.kill()
        holder.wait()

    monkeypatch.setattr(inspection.time, "sleep", sleep)
    inspection.show_status(config_of(run).paths, run.sweep().name, 5)
    assert len(pages) == 1
    assert "1 run: 1 running" in pages[0]
    assert "1 run: 1 killed" in capsys.readouterr().out


def test_two_readers_at_a_time_do_not_take_each_other_for_the_owner(run: RunDir, holder: subprocess.Popen[str]) -> None:
    import fcntl

    holder.kill()
    holder.wait()
    with run.lock_file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not run.alive()
        assert not run.is_locked_now()


@pytest.mark.parametrize("hidden", [False, True])
def test_where_no_lock_tells_the_heartbeat_does(
    run: RunDir, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """A file in the place of a lock stays when its owner is killed; a lock file may be hidden from others."""
    if hidden:
        real = os.open

        def refuse(path: Path, flags: int, *more: Any, **named: Any) -> int:
            if path == run.lock_file:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, flags, *more, **named)

        monkeypatch.setattr("os.open", refuse)
    else:

        def missing(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr("fcntl.flock", missing)
    sweep = run.sweep()
    assert [row.state for row in sweep_status(sweep, {}).rows] == ["running"]
    holder.kill()
    holder.wait()
    silent = time.time() - SILENCE_S - 1
    os.utime(run.owner_file, (silent, silent))
    found = sweep_status(sweep, {})
    assert [row.state for row in found.rows] == ["killed"]
    assert found.in_flight == 0
