"""Programs of users under their supervisor: each end has its cause, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.node import function_watch
from relay.errors import ConfigError, DataError, RelayError, RunError
from relay.files import remove_tree
from relay.runs.lifecycle import AttemptError
from relay.runs.rundir import RunDir
from tests.conftest import ROOT
from tests.node.supervised import RunOf, execute, planned_run
from tests.programs import WALK, curve, write_project
from tests.small_disk import Disk


@pytest.fixture
def run_of(tmp_path: Path) -> RunOf:
    """Makes a run of a program, with these entries of relay.yaml."""

    def make(code: str = WALK, **changes: Any) -> RunDir:
        return planned_run(write_project(tmp_path / "mine", code, **changes))

    return make


def result_of(run: RunDir) -> dict[str, Any]:
    result = run.result()
    assert result
    return result


def after(run: RunDir, rows: int) -> Callable[[], bool]:
    """Whether the run has logged so many rows."""
    return lambda: run.metrics_file.exists() and run.metrics_file.read_bytes().count(b"\n") >= rows


def straight(run_of: RunOf, program: str = WALK, **changes: Any) -> list[dict[str, Any]]:
    run = run_of(program, **changes)
    assert execute(run).status == "done"
    return curve(run.metrics())


EVERY_STEP = {"checkpoint": {"every_steps": 1}}
SLOW = {"params": {"pause_s": 0.02}, **EVERY_STEP}


def test_a_program_is_executed_to_its_end(run_of: RunOf, capfd: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    outcome = execute(run)
    assert (outcome.status, outcome.first_step, outcome.last_step, outcome.total_steps) == ("done", 0, 30, 30)
    result = result_of(run)
    assert result["columns"]["steps"] == 30
    best = min((row for row in run.metrics() if "val/x2" in row), key=lambda row: row["val/x2"])
    assert result["columns"]["val/x2"] == best["val/x2"]
    assert result["columns"]["best_step"] == best["step"]
    assert run.best_file.is_file()
    assert list(run.path.glob("events.out.tfevents.*"))
    assert "walked to" in capfd.readouterr().out
    (made,) = run.attempts()
    assert (made.cause, made.first_step, made.total_steps) == ("DONE", 0, 30)
    assert made.first_step_at
    assert execute(run).status == "done"
    assert len(run.attempts()) == 1


def test_the_runs_may_lie_below_the_current_folder(
    run_of: RunOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = {f"{name}_dir": f"./{name}" for name in ("runs", "artifacts", "logs")}
    run = run_of(WALK, paths=paths, program={"function": "walk:train", "name": "walk"})
    assert not run.path.is_absolute()
    assert execute(run).status == "done"
    assert run.path.resolve().is_relative_to(tmp_path / "here" / "runs")


@pytest.mark.parametrize("rows", [1, 12, 25])
def test_a_stop_is_answered_and_the_next_attempt_goes_on(run_of: RunOf, rows: int) -> None:
    expected = straight(run_of)
    # Rows are written with each state.
    run = run_of(**SLOW)
    stopped = execute(run, after(run, rows))
    assert stopped.status == "stopped"
    assert rows <= stopped.last_step <= 30
    assert execute(run).first_step == stopped.last_step
    assert [made.cause for made in run.attempts()] == ["INTERRUPTED", "DONE"]
    assert curve(run.metrics()) == expected


@contextlib.contextmanager
def meanwhile(act: Callable[[], None], when: Callable[[], bool]) -> Iterator[None]:
    """Do something as soon as it is time, beside what the block does."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not when() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def program_of(run: RunDir) -> int:
    """The process of the run's program."""
    return int(run.reports_file.read_text().splitlines()[0].partition('"pid": ')[2].partition(",")[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_program_that_is_killed_goes_on_where_it_was(run_of: RunOf, number: signal.Signals) -> None:
    expected = straight(run_of)
    run = run_of(**SLOW)
    cause = "KILLED" if number == signal.SIGKILL else "CRASHED"
    said = "its process was killed" if number == signal.SIGKILL else f"its process ended with {number.name}"
    with meanwhile(lambda: os.kill(program_of(run), number), after(run, 5)), pytest.raises(AttemptError, match=said):
        execute(run)
    assert run.attempts()[-1].cause == cause
    # A row is written before its state.
    assert execute(run).first_step >= 4
    assert curve(run.metrics()) == expected


# Body of the function of a program -> cause of its end, its error.
ENDS = {
    "raise ValueError('no such file')": ("CRASHED", "ValueError: no such file"),
    "raise MemoryError": ("OUT_OF_MEMORY", "MemoryError"),
    "import os; os._exit(0)": ("CRASHED", "its process ended with exit code 0 before walk:train returned"),
    "import os; os._exit(130)": ("CRASHED", "its process ended with exit code 130"),
    "import sys; sys.exit(3)": ("CRASHED", "SystemExit: 3"),
    "return 3": ("CRASHED", "the program returned 3; return None or a dict"),
    "run.keep(); run.keep()": ("CRASHED", "run.keep: was called before"),
    "run.log({'x': 'a'})": ("CRASHED", "run.log: x: 'a' is no number"),
    "run.steps(-1)": ("CRASHED", "run.steps(-1): give a whole number of steps"),
}


@pytest.mark.parametrize("body", ENDS)
def test_each_end_has_its_cause(run_of: RunOf, body: str) -> None:
    cause, said = ENDS[body]
    run = run_of(f"def train(run):\n    {body}\n")
    with pytest.raises(AttemptError) as caught:
        execute(run)
    made = run.attempts()[-1]
    assert made.cause == cause
    assert said in str(caught.value) == made.error
    assert run.result() is None


def test_a_program_that_catches_everything_is_stopped_all_the_same(run_of: RunOf) -> None:
    run = run_of(
        """
import time
def train(run):
    run.keep()
    while True:
        try:
            for step in run.steps(1000):
                time.sleep(0.01)
                run.log({"x": step})
            return
        except BaseException:
            run.log({"x": -1})
            if run.should_stop():
                return
""",
        **EVERY_STEP,
    )
    assert execute(run, after(run, 3)).status == "stopped"
    assert run.result() is None


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(600)",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        # Deaf, and each loop begins again.
        "exec('while True:\\n try:\\n  time.sleep(600)\\n except BaseException:\\n  pass')",
    ],
)
def test_a_step_that_does_not_end_is_killed_in_time(
    run_of: RunOf, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = f"""
import time
def train(run):
    run.keep()
    for step in run.steps(10):
        run.log({{"x": step}})
        if step == 4:
            {body}
"""
    run = run_of(program, **EVERY_STEP)
    outcome = execute(run, after(run, 4), lambda: -1.0)
    assert (outcome.status, outcome.last_step) == ("stopped", 4)
    assert "s after it was asked and did not answer; killed; it resumes from step 4" in capsys.readouterr().err
    assert [made.cause for made in run.attempts()] == ["INTERRUPTED"]


def test_nothing_that_a_program_started_stays_behind(run_of: RunOf, tmp_path: Path) -> None:
    run = run_of(
        f"""
import subprocess, os
def train(run):
    first = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    second = subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 3600 & echo $! > {tmp_path}/orphan"])
    second.wait()
    if os.fork() == 0:
        os.setsid()
        open("{tmp_path}/forked", "w").write(str(os.getpid()))
        import time; time.sleep(3600)
    open("{tmp_path}/first", "w").write(str(first.pid))
    while not os.path.exists("{tmp_path}/forked"): pass
"""
    )
    assert execute(run).status == "done"
    for name in ("first", "orphan", "forked"):
        pid = int((tmp_path / name).read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_program_that_does_not_exit_is_done(run_of: RunOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_watch, "_EXIT_S", 0.5)
    run = run_of(
        "import threading, time\ndef train(run):\n    threading.Thread(target=time.sleep, args=(600,)).start()\n"
    )
    assert execute(run).status == "done"


def test_what_a_program_prints_passes_through(run_of: RunOf, capfd: pytest.CaptureFixture[str]) -> None:
    run = run_of(
        """
import os, sys
def train(run):
    print("x" * 2**20)
    print("first"); print("to stderr", file=sys.stderr)
    os.write(1, b"half "); os.write(1, b"line")
    os.write(2, b"\\xff\\n")
    os.close(1)
    os.close(2)
    try:
        print("nobody reads this", flush=True)
    except OSError:
        pass
    return {"note": "fine"}
"""
    )
    assert execute(run).status == "done"
    said = capfd.readouterr()
    assert said.out == "x" * 2**20 + "\nfirst\nhalf line\n"
    assert "to stderr\n\N{REPLACEMENT CHARACTER}\n" in said.err
    result = result_of(run)
    assert result["columns"]["note"] == "fine"


def test_a_metric_that_was_never_logged_is_said(run_of: RunOf, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("def train(run):\n    run.log({'loss': 1.0}, step=1)\n    return {'steps': 3}\n")
    assert execute(run).status == "done"
    said = capsys.readouterr().err
    assert "metrics.select.name: val/x2 was never logged, so the run has no value; logged: loss" in said
    assert "returned steps, which is a column of Relay's" in said
    result = result_of(run)
    assert result["columns"]["val/x2"] is None


def test_early_stopping_is_recorded(run_of: RunOf) -> None:
    run = run_of(
        "def train(run):\n    run.keep()\n    for step in run.steps(10):\n"
        "        run.log({'val/x2': step})\n        if step == 3: break\n"
    )
    assert execute(run).status == "done"
    result = result_of(run)
    assert (result["outcome"], result["steps"]) == ("ended early", 3)


def test_relative_paths_lead_to_the_frozen_project_and_the_work_folder(run_of: RunOf, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (mine / "data" / "x.txt").write_text("read")
    (mine / "near.txt").write_text("near")
    run = run_of(
        """
from pathlib import Path
def train(run):
    assert Path("data/x.txt").read_text() == "read"
    assert (Path(__file__).parent / "data" / "x.txt").read_text() == "read"
    assert Path("near.txt").read_text() == "near"
    Path("outputs").mkdir()
    Path("outputs/y.txt").write_text("written")
    assert run.dir == Path.cwd()
""",
        project={"links": ["data"]},
    )
    (mine / "near.txt").write_text("edited")
    (mine / "walk.py").write_text("this is no Python")
    assert execute(run).status == "done"
    assert (run.work / "outputs" / "y.txt").read_text() == "written"
    assert not (mine / "outputs").exists()


def test_a_project_may_have_packages_with_our_names(run_of: RunOf, tmp_path: Path) -> None:
    for name in ("src", "jobs", "hpc"):
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"WHO = 'mine {name}'\n")
    run = run_of("import src, jobs, hpc\ndef train(run):\n    return {'who': f'{src.WHO}, {jobs.WHO}, {hpc.WHO}'}\n")
    assert execute(run).status == "done"
    result = result_of(run)
    assert result["columns"]["who"] == "mine src, mine jobs, mine hpc"


def test_a_python_without_any_package(run_of: RunOf) -> None:
    expected = straight(run_of)
    # The interpreter below the virtual environment, without site-packages.
    bare = {"function": "walk:train", "python": f"env -u VIRTUAL_ENV {os.path.realpath(sys.executable)} -S -s"}
    run = run_of(WALK, **{**SLOW, "program": bare})
    assert execute(run, after(run, 7)).status == "stopped"
    assert execute(run).status == "done"
    assert curve(run.metrics()) == expected


def test_a_python_that_is_not_there(run_of: RunOf) -> None:
    with pytest.raises(RelayError, match=r"program.python: .*/nowhere/python cannot be executed: No such file"):
        run_of(WALK, program={"function": "walk:train", "python": "nowhere/python"})


def test_a_changed_project_or_input_or_configuration_ends_the_attempt(run_of: RunOf, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    data = tmp_path / "mine" / "x.txt"
    data.write_text("1")
    run = run_of(WALK, inputs=["x.txt"])
    data.write_text("2")
    with pytest.raises(DataError, match="its inputs changed after it was planned"):
        execute(run)
    data.write_text("1")
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("params: {}", "params: {steps: 3}"))
    with pytest.raises(RunError, match="differs from the planned one"):
        execute(run)
    run.config_file.write_text(text)
    (kept,) = (path for path in run.sweep().project.iterdir() if path.is_dir())
    (kept / "walk.py").chmod(0o644)
    (kept / "walk.py").write_text("def train(run): ...")
    with pytest.raises(RelayError, match=r"is no longer the project of train_.*: walk.py was changed; restore it"):
        execute(run)
    remove_tree(kept)
    with pytest.raises(RelayError, match=r"walk.py is missing"):
        execute(run)


HOLD = """
import sys
from pathlib import Path
from hpc.node.execution import execute_run
from hpc.recovery.diagnosis import StopRequest
from relay.progress import PlainReporter
from relay.runs.rundir import RunDir

stop = StopRequest()
stop.install()
execute_run(RunDir(Path(sys.argv[1])), stop, PlainReporter())
"""


@pytest.mark.parametrize(
    ("prefix", "lives_on"), [("", False), ("env", False), ('bash -c \'trap "" TERM; "$0" "$@"; true\'', True)]
)
def test_the_run_stays_locked_until_the_program_is_gone(run_of: RunOf, prefix: str, lives_on: bool) -> None:
    """kill -9 of the supervisor: the kernel kills its child; what is behind a shell lives on, and holds the lock."""
    python = (
        {"function": "walk:train", "python": f"{prefix} {sys.executable}"} if prefix else {"function": "walk:train"}
    )
    run = run_of(WALK, params={"pause_s": 0.05, "steps": 60}, program=python, **EVERY_STEP)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], cwd=ROOT) as process:
        deadline = time.monotonic() + 30
        while not after(run, 3)() and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = program_of(run)
        process.kill()
        process.wait()
    time.sleep(0.3)
    assert run.is_locked_now() is lives_on
    if lives_on:
        with pytest.raises(RunError, match="is being executed by another process"):
            execute(run)
        os.kill(pid, signal.SIGKILL)
        while run.is_locked_now():
            time.sleep(0.02)
    assert execute(run).first_step >= 2
    assert [made.cause for made in run.attempts()] == ["KILLED", "DONE"]
    steps = [row["step"] for row in run.metrics()]
    assert steps == list(range(1, 61))


def test_a_stop_reaches_a_program_behind_a_shell(run_of: RunOf) -> None:
    shell = f'bash -c \'"$0" "$@"; true\' {sys.executable}'
    run = run_of(WALK, params={"pause_s": 0.02}, program={"function": "walk:train", "python": shell})
    assert execute(run, run.reports_file.exists).status == "stopped"
    assert execute(run, lambda: run.reports_file.read_text().count("first_step") > 0).status == "stopped"
    assert len(list(run.checkpoints.glob("step_*"))) > 0
    assert execute(run).status == "done"
    assert [row["step"] for row in run.metrics()] == list(range(1, 31))


def test_a_fork_is_not_the_program(run_of: RunOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_watch, "_EXIT_S", 0.2)
    run = run_of(
        """
import multiprocessing, os, time
def train(run):
    run.keep()
    if os.fork() == 0:
        return {"who": "fork"}
    if os.fork() == 0:
        raise ValueError("of a fork")
    begun = time.monotonic()
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    worker.terminate()
    worker.join()
    for step in run.steps(10):
        time.sleep(0.05)
    return {"who": "program", "terminated_s": time.monotonic() - begun}
"""
    )
    outcome = execute(run)
    result = result_of(run)
    assert (outcome.last_step, result["columns"]["who"]) == (10, "program")
    assert result["columns"]["terminated_s"] < 10


def test_values_that_say_nothing_end_no_run(run_of: RunOf, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(
        "import math\ndef train(run):\n    run.log({'x': 10**400, 'val/x2': math.nan}, step=1)\n"
        "    return {'acc': math.nan, 'run': 'evil', 'state': 'failed'}\n"
    )
    assert execute(run).status == "done"
    result = result_of(run)
    assert result["columns"]["acc"] is None
    assert not {"run", "state"} & result["columns"].keys()
    assert "returned run, which is a column of Relay's" in capsys.readouterr().err


def test_the_current_run_is_known_when_the_module_is_imported_there(run_of: RunOf) -> None:
    text = "import relay\n\ndef helper():\n    return relay.current()\n\ndef train(run):\n    assert helper() is run\n"
    assert execute(run_of(text)).status == "done"
    with pytest.raises(ConfigError, match=r"relay.current\(\): call it in the function"):
        run_of(f"{text}\nrelay.current()\n")


def test_kernels_are_chosen_for_a_program_that_imports_torch_late(run_of: RunOf) -> None:
    run = run_of(
        "def train(run):\n    import torch\n    run.keep()\n    for step in run.steps(1): pass\n"
        "    return {'chosen': int(torch.are_deterministic_algorithms_enabled())}\n"
    )
    assert execute(run).status == "done"
    result = result_of(run)
    assert result["columns"]["chosen"] == 1


def test_a_full_disk_is_the_reason_and_costs_no_state(run_of: RunOf, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    try:
        paths = {"runs_dir": str(disk.path / "runs"), **{f"{n}_dir": str(tmp_path / n) for n in ("artifacts", "logs")}}
        program = {"function": "walk:train", "name": "walk"}
        run = run_of(WALK, params={"pause_s": 0.02, "steps": 60}, program=program, paths=paths, **EVERY_STEP)
        with meanwhile(lambda: disk.leave(0), after(run, 5)), pytest.raises(RelayError) as caught:
            execute(run)
        assert "No space left on device" in str(caught.value)
        disk.make_room()
        assert execute(run).first_step >= 4
        assert [row["step"] for row in run.metrics()] == list(range(1, 61))
    finally:
        subprocess.run(["umount", str(disk.path)], check=True)
