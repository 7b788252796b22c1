"""A training that is killed anywhere, any number of times, ends like one that was never interrupted.

RELAY_KILLS=5000 kills more often, RELAY_KILL_SEED=7 at other moments.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.files import read_lines
from relay.program.states import checksum_in, list_states, load_newest, newest_step, save_state
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import make_config
from src.requests import train_request
from tests.conftest import ROOT, SMALL, assert_same_run
from tests.fork_server import ForkServer
from tests.fork_server import fork_server as shared_fork_server

KILLS = int(os.environ.get("RELAY_KILLS", "200"))
SEED = int(os.environ.get("RELAY_KILL_SEED", "1"))
PARTS = 4
SHORT = {"train.max_steps": 3, "metrics.log_every_steps": 1}
WRITERS = [
    *("relay/files.py", "relay/program/states.py", "relay/runs/lifecycle.py", "relay/runs/rundir.py"),
    *(f"src/training/{name}.py" for name in ("metric_log", "session", "weights")),
]
# All but the reading of YAML, which takes more instructions than all else and writes nothing.
ANYWHERE = sorted(
    f"{layer}/{path.name}"
    for layer in ("relay", "src")
    for path in (ROOT / layer).iterdir()
    if path.name not in ("config", "__pycache__")
)
# Their bytecode instructions before the first step, and per step. They only spread the kills evenly over a run.
START, STEP = 14_000, 3_700

New = Callable[..., RunDir]


@pytest.fixture(scope="module")
def fork_server() -> ForkServer:
    return shared_fork_server()


@pytest.fixture(scope="module")
def new(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> New:
    """Makes runs that save at every step: 3 epochs of 6 steps, with changes by key path."""
    folder = tmp_path_factory.mktemp("kills")
    fixed = {"dataset.root": str(data_root), **{f"paths.{n}_dir": str(folder / n) for n in ("runs", "artifacts")}}
    fixed["augment.color_jitter"] = None  # only what is written counts here

    def make(changes: dict[str, Any]) -> RunDir:
        config = make_config(SMALL, "the test's experiment", {**fixed, "checkpoint.every_steps": 1, **changes})
        return open_sweep(train_request(config), fresh=True)[0].runs()[0]

    return make


@pytest.fixture(scope="module")
def straight(fork_server: ForkServer, new: New) -> RunDir:
    return finished(fork_server, new({}))


@pytest.fixture(scope="module")
def short(fork_server: ForkServer, new: New) -> RunDir:
    return finished(fork_server, new(SHORT))


def finished(fork_server: ForkServer, run: RunDir) -> RunDir:
    """The run, executed to its end."""
    assert fork_server.train(run.path) == (0, None)
    assert run.result() is not None
    return run


def check_end(straight: RunDir, run: RunDir) -> None:
    """The run equals `straight`, every attempt is closed, and killed attempts left no files."""
    assert_same_run(straight, run)
    attempts = run.attempts()
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    assert {attempt.cause for attempt in attempts[:-1]} <= {"KILLED"}
    assert attempts[-1].cause == "DONE"
    assert [path.name for path in run.path.rglob("*") if path.suffix in (".tmp", ".unused")] == []
    assert len(list_states(run.checkpoints)) == 1
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1


def check_disk(run: RunDir) -> None:
    """After a kill, every state is intact, and the rows that the newest one has seen are there."""
    for path in list_states(run.checkpoints):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum_in(path)
    rows = run.metrics_file.read_bytes() if run.metrics_file.exists() else b""
    for path in list_states(run.checkpoints)[:1]:
        state = load_newest(path.parent, lambda found: "", pytest.fail)
        assert state is not None
        seen = rows[: state["metrics_bytes"]]
        assert len(seen) == state["metrics_bytes"]
        assert seen == b"" or seen.endswith(b"\n")


def hunt(fork_server: ForkServer, new: New, straight: RunDir, kills: int, draw: Callable[[], dict[str, Any]]) -> None:
    """Kill trainings, each one again and again until it is done, then the next."""
    run, killed, most = new({}), 0, 0
    while killed < kills:
        code, report = fork_server.train(run.path, **draw())
        assert code in (0, -signal.SIGKILL), report
        killed += code != 0
        check_disk(run)
        most = max(most, len(run.attempts()))
        if run.result() is not None:
            check_end(straight, run)
            run = new({})
    check_end(straight, finished(fork_server, run))
    assert most > 3


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_any_instruction(fork_server: ForkServer, new: New, straight: RunDir, part: int) -> None:
    """Most kills come early, so that a run is killed many times; the others come anywhere in the run."""
    moments = random.Random(f"{SEED} {part}")

    def draw() -> dict[str, Any]:
        last = START + STEP * (3 if moments.random() < 0.8 else 18)
        return {"instruction": moments.randint(1, last), "within": ANYWHERE}

    hunt(fork_server, new, straight, KILLS // 2 // PARTS, draw)


def test_killed_at_any_instruction_of_what_writes(fork_server: ForkServer, new: New, straight: RunDir) -> None:
    moments = random.Random(f"{SEED} writers")
    hunt(fork_server, new, straight, KILLS // 4, lambda: {"instruction": moments.randint(1, 6000), "within": WRITERS})


def test_killed_at_any_moment(fork_server: ForkServer, new: New, straight: RunDir) -> None:
    """Also inside torch, zlib or a system call."""
    moments = random.Random(f"{SEED} moments")
    hunt(fork_server, new, straight, KILLS // 4, lambda: {"seconds": moments.random() * 0.2})


@pytest.mark.parametrize(
    ("name", "opening", "stride", "steps_before"),
    [
        pytest.param("*step_*", 1, 2801, 0, id="first-state"),
        pytest.param("*step_*", 1, 2801, 2, id="later-state"),
        pytest.param("*best.ckpt*", 1, 1201, 0, id="best"),
        pytest.param("metrics.jsonl", 1, 13, 0, id="first-rows"),
        pytest.param("metrics.jsonl", 1, 17, 2, id="later-rows"),
        pytest.param(".metrics.jsonl*", 1, 29, 2, id="rows-cut-back"),
        pytest.param("attempts.jsonl", 1, 4, 0, id="first-line-of-attempts"),
        pytest.param("attempts.jsonl", 2, 7, 0, id="second-line-of-attempts"),
        pytest.param("*provenance.json*", 1, 11, 0, id="provenance"),
        pytest.param("events.out.tfevents*", 1, 401, 2, id="tensorboard"),
        pytest.param("*result.json*", 1, 29, 0, id="result"),
    ],
)
def test_killed_every_few_bytes_of_a_write(
    fork_server: ForkServer, new: New, short: RunDir, name: str, opening: int, stride: int, steps_before: int
) -> None:
    """The same run is killed in the same write, some bytes later each time, until the write succeeds.

    One time in twelve the run may finish, and a new one takes its place.
    """
    finish = random.Random(f"{SEED} {name} {opening}")
    deaths, code, run = 0, -signal.SIGXFSZ, begin(fork_server, new, steps_before)
    while code:
        code, report = fork_server.train(run.path, name=name, opening=opening, byte=deaths * stride)
        assert code in (0, -signal.SIGXFSZ), report
        check_disk(run)
        deaths += code != 0
        if code and (run.result() is not None or finish.random() < 1 / 12):
            check_end(short, finished(fork_server, run))
            run = begin(fork_server, new, steps_before)
    check_end(short, run)
    assert deaths >= 8


def begin(fork_server: ForkServer, new: New, steps: int) -> RunDir:
    """A short run that was killed while it saved the state after `steps`: it has that of `steps`, and one row more."""
    run = new(SHORT)
    if steps:
        assert fork_server.train(run.path, name="*step_*", opening=steps + 1, byte=0)[0] == -signal.SIGXFSZ
        assert newest_step(run.checkpoints) == steps
    return run


def test_killed_at_every_line_between_write_fsync_and_rename(
    fork_server: ForkServer, new: New, short: RunDir, tmp_path: Path
) -> None:
    """At every line of these functions in the last step and at the end of a run, what is on disk can be resumed."""
    functions = [f"relay/files.py:{name}" for name in ("replace_file", "append_lines")]
    begun = begin(fork_server, new, 2)
    whole = RunDir(shutil.copytree(begun.path, tmp_path / "whole"))
    code, lines = fork_server.train(whole.path, lines=functions, copies=str(tmp_path / "copies"))
    assert code == 0, lines
    assert lines > 80
    check_end(short, whole)
    copies = sorted((tmp_path / "copies").iterdir())
    assert len(copies) > 20
    for copy in map(RunDir, copies):
        check_disk(copy)
        if copy.result() is None:
            check_end(short, finished(fork_server, copy))
        assert_same_run(short, copy)


def test_what_is_durable_when_and_any_power_cut(
    fork_server: ForkServer, new: New, short: RunDir, tmp_path: Path
) -> None:
    run = new(SHORT)
    code, events = fork_server.train(run.path, images=str(tmp_path / "images"))
    assert code == 0, events
    saved: list[str] = []
    for event in events:
        if event["what"] == "rename":
            assert event["whole"], f"{event['to']} takes its name before its content is durable"
        if event["to"].startswith("step_"):
            assert event["rows_whole"], "a state is there before the rows that it counts on are durable"
            saved.append(event["to"])
        if event["what"] == "remove" or event["to"] == "result.json":
            assert saved[-1] in event["states"], "the new state's name must be durable before the old one goes"
            assert saved[-1] != event["name"]
    assert [event["to"] for event in events if event["to"]][-1] == "result.json"
    assert len(saved) == 4
    images = sorted((tmp_path / "images").iterdir())
    assert len(images) > 15
    for image in images:
        left = RunDir(image)
        if left.result() is None:
            finished(fork_server, left)
        assert_same_run(short, left)
    assert len(read_lines(short.metrics_file)) == 4


def saved_steps(folder: Path) -> list[int]:
    return [int(path.name[5:14]) for path in list_states(folder)]


def test_a_damaged_state_does_not_count_among_those_to_keep(tmp_path: Path) -> None:
    for step in (8, 12):
        save_state(tmp_path, step, {"step": step}, keep=2)
    newest = list_states(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    said: list[str] = []
    state = load_newest(tmp_path, lambda found: "", said.append)
    assert state == {"step": 8}
    assert "step_000000012" in said[0]
    save_state(tmp_path, 10, {"step": 10}, keep=2)
    assert saved_steps(tmp_path) == [10, 8]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_starts_over_keeps_what_it_saves(tmp_path: Path) -> None:
    """States of an earlier config may have later steps; they must not displace the run's own."""
    for step in (8, 12):
        save_state(tmp_path, step, {"step": step}, keep=2)
    said: list[str] = []
    assert load_newest(tmp_path, lambda found: "the config was changed", said.append) is None
    assert "the one before it" in said[0]
    assert "starts over" in said[1]
    save_state(tmp_path, 1, {"step": 1}, keep=2)
    assert saved_steps(tmp_path) == [1]
    state = load_newest(tmp_path, lambda found: "", pytest.fail)
    assert state == {"step": 1}
