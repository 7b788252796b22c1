"""Tables on real terminals of several widths, with brackets in names and messages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table

from relay.config import yaml_file
from relay.log import log
from relay.progress import BarReporter
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep
from relay.terminal import print_rows, table_of
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT, command_environment
from tests.fork_server import fork_python

ERROR = "[/opt/x.cc:598] failed [bold] :x: [/]"
AXES = {
    "lr": [0.00123, 0.00234],
    "weight_decay": [0.00001, 0.0003],
    "num_modules": [2, 3],
    "train.scheduler.warmup_steps": [100, 200],
}


@pytest.fixture
def sweep(small: Callable[..., Config], tmp_path: Path) -> SweepDir:
    """Sixteen runs with long names: one failed with an error that looks like markup, one interrupted at a late step."""
    config = small(hparams=AXES, train__epochs=1000)
    (tmp_path / "axes.yaml").write_text(yaml_file.dump_yaml(config.to_dict()))
    made = open_sweep(grid_request(config))[0]
    failed, late = made.runs()[:2]
    failed.record_attempt(1, start=1.0, end=2.0, cause="CRASHED", error=ERROR, first_step=0, last_step=0)
    late.record_attempt(1, start=1.0, end=2.0, cause="KILLED", first_step=0, last_step=5, total_steps=123456)
    return made


def on_a_terminal(width: int, height: int, *words: str) -> list[str]:
    """The final lines of a command on a terminal of this size, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    env = {name: value for name, value in command_environment(None).items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=env | {"TERM": "xterm"}, stdout=slave, stderr=slave, stdin=slave
    ) as process:
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):  # The terminal's other end is closed.
            while part := os.read(master, 65536):
                said += part
        assert process.wait(timeout=60) == 0, said.decode()
    os.close(master)
    # A page that is redrawn starts at the top: only the last one remains.
    page = re.split(r"(?:\x1b\[1A\x1b\[2K)+", said.decode())[-1]
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", page)
    return [line.rstrip() for line in text.replace("\r", "").split("\n")]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_names_states_and_steps_are_never_cut(sweep: SweepDir, tmp_path: Path, width: int) -> None:
    lines = on_a_terminal(width, 60, "hpc.launch", "status", "--config", str(tmp_path / "axes.yaml"), "--watch")
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("16 runs:"))]
    assert max(len(line) for line in table) <= width
    folded = "".join(line.split(" ")[0] for line in table)
    for run, state in zip(sweep.runs(), ("crashed", "killed", *["new"] * 14), strict=True):
        assert run.name in folded
        assert any(run.name.startswith(line.split(" ")[0]) and state in line for line in table if " " in line)
    assert any("0/123456" in line for line in table)
    if width == 200:
        assert any(ERROR[:24] in line for line in table)
    if width == 60:
        assert any(line.startswith("no room for: ") for line in table)


def test_a_page_of_a_watch_is_no_higher_than_the_terminal(sweep: SweepDir, tmp_path: Path) -> None:
    lines = on_a_terminal(120, 20, "hpc.launch", "status", "--config", str(tmp_path / "axes.yaml"), "--watch")
    assert len([line for line in lines if line]) < 20
    assert any(line.startswith("(") and line.endswith(" more)") for line in lines)
    assert any(line.startswith("16 runs:") for line in lines)


def test_a_pipe_gets_all_of_it_or_what_fits_into_the_columns_that_are_asked_for(
    sweep: SweepDir, tmp_path: Path
) -> None:
    def table(**env: str) -> str:
        done = fork_python("hpc.launch", "status", "--config", str(tmp_path / "axes.yaml"), env={"TERM": "dumb", **env})
        assert done.returncode == 0, done.stderr
        return done.stdout.split("16 runs:")[0]

    assert ERROR in table(COLUMNS="")
    assert "\u2026" not in table(COLUMNS="")
    narrow = table(COLUMNS="110")
    assert max(map(len, narrow.splitlines())) <= 110
    (cut,) = re.findall(r"(\S+ \S+.*)\u2026", narrow)
    # Between two words.
    assert f"{' '.join(cut.split()[-2:])} " in ERROR
    assert table(COLUMNS="none") == table(COLUMNS="")


def test_axes_get_room_before_further_metrics_and_the_job_before_the_causes() -> None:
    row = {"run": "k=000_act=relu", "state": "done", "activation": "relu", "val/accuracy": 0.5, "val/loss": 1.0}
    _, table = table_of([{**row, "val/macro_f1": 0.25, "best_epoch": 3.0}], "grid", width=65).renderables
    assert isinstance(table, Table)
    assert [str(column.header) for column in table.columns] == [
        *("run", "state", "activation", "val/accuracy", "val/loss")
    ]
    assert str(table.caption) == "no room for: val/macro_f1, best_epoch"
    row = {"run": "k=000", "state": "crashed", "causes": "CRASHED TIMEOUT", "job": "70_3"}
    _, table = table_of([row], "grid", width=24).renderables
    assert isinstance(table, Table)
    assert [str(column.header) for column in table.columns] == ["run", "state", "job"]


def test_what_comes_from_outside_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[/a] [red]b[/red] :x: \x1b[31mc\nd [link=e]"
    print_rows([{"run": hostile, "state": "new", hostile: 1}], hostile)
    said = capsys.readouterr().out
    assert said.count("[/a] [red]b[/red] :x:") == 3
    assert "\x1b" not in said


def test_the_bar_shows_what_is_said_as_it_is_and_no_length_that_it_does_not_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with BarReporter() as reporter:
        log.info(ERROR)
        reporter.advance(1, 3, ERROR)
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert said.count(ERROR) >= 2
    assert "?" not in said
    assert "1/3" in said


def test_a_title_is_not_wrapped_at_the_width_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    title = "grid_search_20261130-005928"
    print_rows([{"run": "k=000", "state": "new"}], title)
    assert capsys.readouterr().out.splitlines()[0].rstrip() == title
