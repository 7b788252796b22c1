"""The log of commands and jobs: levels, --verbose and --quiet, and streams that are gone."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.node.task import main
from relay.log import LEVEL_VARIABLE, log, set_verbosity, start_log
from tests.conftest import ROOT, command_environment, fake, run_python, site_path
from tests.fork_server import fork_python


def test_lines_have_the_time_and_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    log.debug("not shown")
    log.info("100% [done] :smile:")
    log.warning("careful")
    log.error("failed")
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "TIME ", line) for line in capsys.readouterr().err.splitlines()]
    assert said == ["TIME 100% [done] :smile:", "TIME warning: careful", "TIME error: failed"]


def test_a_root_handler_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        start_log()
        log.info("once")
    finally:
        logging.getLogger().removeHandler(handler)
    said = capsys.readouterr()
    assert (said.out + said.err).count("once") == 1


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, "warning info"), ({"quiet": True}, "warning"), ({"verbose": True}, "warning info debug")],
)
def test_levels(
    options: dict[str, bool], shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "")
    set_verbosity(**options)
    for level in ("warning", "info", "debug"):
        getattr(log, level)(f"<{level}>")
    assert " ".join(re.findall("<(.*)>", capsys.readouterr().err)) == shown


def test_a_job_logs_as_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hpc.node.task.execute_runs", lambda runs: {})
    (tmp_path / "tasks.json").write_text("[[]]")
    set_verbosity(verbose=True)
    log.setLevel(logging.ERROR)
    main(tmp_path / "tasks.json")
    assert log.level == logging.DEBUG
    monkeypatch.delenv(LEVEL_VARIABLE)
    main(tmp_path / "tasks.json")
    assert log.level == logging.INFO


def test_quiet_silences_progress_and_keeps_errors(small_file: Path) -> None:
    words = ("src.train", "--config", str(small_file), "--max-steps", "4")
    done = fork_python(*words, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "forecast" not in done.stdout
    again = fork_python(*words, "--fresh", "--here")
    assert "step 4/4" in again.stderr
    assert "forecast" in again.stdout
    assert "\x1b" not in again.stderr + again.stdout
    refused = fork_python(*words, "-q", "--set", "train.epochs=-1")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


def test_verbose_shows_the_slurm_commands(small_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    fake(folder, "scontrol", "echo 'no controller'; exit 1")
    words = ("hpc.launch", "doctor", "--config", str(small_file), "--cluster", "one-machine", "--no-node")
    env = {"PATH": site_path(folder)}
    shown = run_python(*words, "-v", env=env).stderr
    assert re.search(r"debug: scontrol show config: exit code 1 after \d+\.\d\d s", shown)
    assert run_python(*words, env=env).stderr == ""


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_stream_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, _Full()):
        monkeypatch.setattr(sys, "stderr", stream)
        log.error("nobody reads this")


def test_a_broken_pipe_stays_quiet() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from relay.cli import run_command\nfrom relay.log import log\n"
    code += "def main() -> None:\n    log.info('first')\n    print('answer', flush=True)\n    log.info('last')\n"
    code += "run_command(main)"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=command_environment(None), text=True, check=False
    )
    os.close(writing)
    assert done.returncode == 1
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["first"]
