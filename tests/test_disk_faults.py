"""Disks that are full, not to be written, or gone: one clear message, nothing lost, and the same command goes on.

The disk is a small file system of its own, and its faults are real: its size is changed under the training.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.config.yaml_file import dump_yaml
from relay.errors import RelayError
from relay.program.states import load_newest
from relay.progress import PlainReporter
from relay.runs.lifecycle import Outcome, attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep, sweeps
from src.config.loading import load_config
from src.config.schema import Config
from src.requests import grid_request, train_request
from src.training.trainer import train
from tests.conftest import ROOT, assert_same_run, small_config
from tests.fork_server import fork_python
from tests.small_disk import PAGE, Disk

EVERY_STEP = {
    "checkpoint__every_steps": 1,
    "metrics__log_every_steps": 1,
    "train__max_steps": 8,
    "augment__color_jitter": None,  # only what is written counts here
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def on_disk(small: Callable[..., Config], disk: Disk) -> Callable[..., Config]:
    """Makes small experiments that save at every step, and whose runs are on the small disk."""

    def make(**changes: Any) -> Config:
        return small(**{"paths__runs_dir": str(disk.path / "runs"), **EVERY_STEP, **changes})

    return make


@pytest.fixture(scope="module")
def straight(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same experiment on another disk. It is only looked at."""
    run = new_run(small_config(data_root, tmp_path_factory.mktemp("straight"), **EVERY_STEP))
    assert execute(run).status == "done"
    return run


def new_run(config: Config) -> RunDir:
    return open_sweep(train_request(config))[0].runs()[0]


def execute(run: RunDir, at_question: int = -1, fault: Callable[[], None] = lambda: None) -> Outcome:
    """An attempt at the run; `fault` comes at the n-th time that the training asks whether to stop: before a step."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == at_question:
            fault()
        return False

    return attempt(run, train, should_stop, PlainReporter())


def check_whole(run: RunDir) -> int:
    """The newest state is whole and no half one lies about. Returns its step."""
    assert list(run.checkpoints.glob(".*")) == []
    state = load_newest(run.checkpoints, lambda found: "", pytest.fail)
    return int(state["step"]) if state else 0


def check_message(error: RelayError, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("every_steps", "files"),
    [
        (1, ["attempts.jsonl", "provenance.jsonl", "events.out", "metrics.jsonl", "checkpoints: the checkpoint"]),
        (100, ["checkpoints/best.ckpt", "checkpoints: the checkpoint"]),
    ],
)
def test_a_disk_of_any_size_is_full_at_some_moment(
    disk: Disk,
    on_disk: Callable[..., Config],
    small: Callable[..., Config],
    tmp_path: Path,
    every_steps: int,
    files: list[str],
) -> None:
    """Page by page, until there are enough: each file is refused once."""
    short = {**EVERY_STEP, "train__max_steps": 3}
    straight = new_run(small(paths__runs_dir=str(tmp_path / "straight"), **short))
    execute(straight)
    messages, completed = [], 0
    while completed < 3:
        pages = len(messages) + completed
        folder = disk.path / f"runs-{pages}"
        run = new_run(on_disk(**{**short, "paths__runs_dir": str(folder), "checkpoint__every_steps": every_steps}))
        disk.leave(pages)
        refusal = refused_attempt(run)
        disk.make_room()
        if refusal is None:
            completed += 1
        else:
            assert str(run.path) in refusal
            assert "No space left on device" in refusal
            assert "free some space" in refusal
            messages.append(refusal.removeprefix(str(run.path)))
            saved = check_whole(run)
            assert execute(run).first_step == saved
        assert_same_run(straight, run)
        shutil.rmtree(folder)
    assert [file for file in files if not any(file in message for message in messages)] == [], messages


def refused_attempt(run: RunDir) -> str | None:
    """The message of an attempt that was refused; None of one that was not."""
    try:
        execute(run)
    except RelayError as error:
        return str(error)
    return None


@pytest.mark.parametrize("question", [1, 2, 6, 9])
def test_a_disk_that_gets_full_in_the_midst(
    disk: Disk, on_disk: Callable[..., Config], straight: RunDir, question: int
) -> None:
    run = new_run(on_disk())
    with pytest.raises(RelayError) as caught:
        execute(run, question, lambda: disk.leave(0))
    check_message(caught.value, str(run.path), "No space left on device", "free some space")
    saved = check_whole(run)
    with pytest.raises(RelayError):
        execute(run)
    assert check_whole(run) == saved
    disk.make_room()
    assert execute(run).first_step == saved
    assert_same_run(straight, run)
    assert [attempt.number for attempt in run.attempts()] == list(range(1, len(run.attempts()) + 1))
    assert run.attempts()[-1].cause == "DONE"


@pytest.mark.parametrize("name", ["write_result", "record_attempt"])
def test_a_disk_that_is_full_at_the_very_end(
    disk: Disk, on_disk: Callable[..., Config], straight: RunDir, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No page is left for result.json; or for the line that closes the attempt, which is then closed by result.json."""
    run = new_run(on_disk())
    whole = getattr(RunDir, name)

    def on_a_full_disk(self: RunDir, *given: Any, **facts: Any) -> None:
        if name == "write_result" or "end" in facts:
            free = PAGE - run.attempts_file.stat().st_size % PAGE
            with run.attempts_file.open("a") as file:
                file.write("\n" * free)
            disk.leave(0)
        whole(self, *given, **facts)

    monkeypatch.setattr(RunDir, name, on_a_full_disk)
    with pytest.raises(RelayError) as caught:
        execute(run)
    monkeypatch.undo()
    named = run.result_file if name == "write_result" else run.attempts_file
    check_message(caught.value, f"{named}: cannot be written: No space left on device")
    disk.make_room()
    assert execute(run).status == "done"
    assert_same_run(straight, run)
    assert run.attempts()[-1].cause == "DONE"


def test_an_attempt_that_cannot_even_say_that_it_ended(
    disk: Disk, on_disk: Callable[..., Config], straight: RunDir
) -> None:
    """What is raised is why it ended, and not that the line about it could not be written."""
    run = new_run(on_disk())

    def fill() -> None:
        with run.attempts_file.open("a") as file:
            file.write("\n" * (PAGE - run.attempts_file.stat().st_size % PAGE))
        disk.leave(0)

    with pytest.raises(RelayError) as caught:
        execute(run, 5, fill)
    check_message(caught.value, "the checkpoint of step 5 cannot be written: No space left on device")
    assert not run.attempts()[-1].ended
    disk.make_room()
    assert execute(run).first_step == 4
    assert [attempt.cause for attempt in run.attempts()] == ["KILLED", "DONE"]
    assert_same_run(straight, run)


@pytest.mark.parametrize("away", ["run", "checkpoints"])
def test_a_folder_that_vanishes_and_comes_back(
    on_disk: Callable[..., Config], straight: RunDir, tmp_path: Path, away: str
) -> None:
    run = new_run(on_disk())
    folder = run.path if away == "run" else run.checkpoints
    with pytest.raises(RelayError) as caught:
        execute(run, 5, lambda: shutil.move(folder, tmp_path / "elsewhere"))
    reason = "was deleted, moved or replaced" if away == "run" else "cannot be written: No such file or directory"
    check_message(caught.value, str(run.path), reason, "restore the directory")
    assert not folder.exists()
    shutil.move(tmp_path / "elsewhere", folder)
    assert check_whole(run) == 4
    assert execute(run).first_step == 4
    assert_same_run(straight, run)


def test_a_folder_that_is_gone_for_good(on_disk: Callable[..., Config], straight: RunDir) -> None:
    run = new_run(on_disk())
    with pytest.raises(RelayError, match="start the run over with the same command"):
        execute(run, 5, lambda: shutil.rmtree(run.path))
    assert not run.path.exists()
    assert execute(run).first_step == 0
    assert_same_run(straight, run)


def test_a_folder_that_is_made_immutable(on_disk: Callable[..., Config], straight: RunDir, tmp_path: Path) -> None:
    """Root, too, is refused what a folder of another owner refuses the rest."""
    run = new_run(on_disk(paths__runs_dir=str(tmp_path / "here")))

    def change(flag: str) -> None:
        done = subprocess.run(["chattr", flag, str(run.checkpoints)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"chattr is refused here: {done.stderr.strip()}")

    try:
        with pytest.raises(RelayError) as caught:
            execute(run, 5, lambda: change("+i"))
        check_message(caught.value, "the checkpoint of step 5 cannot be written: Operation not permitted")
    finally:
        change("-i")
    assert execute(run).first_step == 4
    assert_same_run(straight, run)


def refused(*words: str) -> str:
    """The message of a command that ends with what its user can fix."""
    done = fork_python(*words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
    return "\n".join(lines[at:])


def test_the_same_command_goes_on_when_there_is_room(
    disk: Disk,
    on_disk: Callable[..., Config],
    straight: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # bytecode beside the sweep's code would take the room
    experiment = tmp_path / "on-disk.yaml"
    experiment.write_text(dump_yaml(on_disk().to_dict()))
    words = ["src.train", "--config", str(experiment)]
    disk.leave(3)
    assert f"{disk.path / 'runs'}" in refused(*words)
    disk.make_room()
    # The sweep is planned, so that the room is for the files of its run: it takes two states.
    open_sweep(train_request(load_config(str(experiment))))
    disk.leave(22)
    message = refused(*words)
    assert "No space left on device" in message
    assert "free some space" in message
    [sweep] = sweeps(disk.path / "runs")
    run = sweep.runs()[0]
    saved = check_whole(run)
    assert saved > 0
    disk.forbid_writing()
    assert "Read-only file system" in refused(*words)
    disk.make_room()
    assert "fix what the error reports, then: " in refused(*words), "a crash is not tried again by itself"
    done = fork_python("hpc.launch", "retry", "--failed", *words[1:])
    assert done.returncode == 0, done.stderr
    assert f"resumes from step {saved} of 8" in done.stderr
    assert_same_run(straight, run)


def test_a_sweep_that_the_disk_has_no_room_for_leaves_nothing(disk: Disk, on_disk: Callable[..., Config]) -> None:
    config = on_disk(hparams__lr=[0.001, 0.002, 0.003, 0.004])
    refusals = 0
    code = code_pages()
    for pages in (*range(0, code, 16), *range(code, code + 100)):
        disk.leave(pages)
        refusal = refused_plan(config)
        if refusal is None:
            break
        refusals += 1
        assert "No space left on device" in refusal
        assert [path.name for path in (disk.path / "runs").glob("*") if path.name != ".planning.lock"] == []
    assert refusals > 5
    assert [len(sweep.runs()) for sweep in sweeps(disk.path / "runs")] == [8]


def code_pages() -> int:
    """What the code that a sweep keeps takes on this disk, in pages."""
    files = [path for layer in ("relay", "src", "jobs", "hpc") for path in (ROOT / layer).rglob("*.py")]
    return sum(-(-path.stat().st_size // 4096) for path in files)


def refused_plan(config: Config) -> str | None:
    """The message of a plan that was refused; None of one that was not."""
    try:
        open_sweep(grid_request(config))
    except (RelayError, OSError) as error:
        return str(error)
    return None
