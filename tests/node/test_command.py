"""Commands of users under their supervisor: told once, resumed from their own checkpoints, each end with its cause."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc.processes import command_line, descendants
from relay.errors import ConfigError, RunError
from relay.runs.lifecycle import AttemptError
from relay.runs.rundir import RunDir
from tests.node.supervised import RunOf, execute, planned_run
from tests.scripts import RESTART, TRAIN, write_script

SLOW = {"pause": 0.02}


@pytest.fixture
def run_of(tmp_path: Path) -> RunOf:
    """Makes a run of a script, with these entries of relay.yaml."""

    def make(code: str = TRAIN, **changes: Any) -> RunDir:
        return planned_run(write_script(tmp_path / "mine", code, **changes))

    return make


def steps_of(run: RunDir) -> list[int]:
    """The steps that the script has made, in order, repeated ones included."""
    return [int(line) for line in (run.work / "steps").read_text().split()]


def starts_of(run: RunDir) -> list[int]:
    """Where each attempt began."""
    return [int(line.split()[0]) for line in (run.work / "starts").read_text().splitlines()]


def after(run: RunDir, count: int) -> Callable[[], bool]:
    """Whether the script has made so many steps."""
    return lambda: (run.work / "steps").exists() and len((run.work / "steps").read_text().split()) >= count


def losses(run: RunDir) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in run.metrics()}


# What the script logs: a number that each step makes smaller by a tenth.
EXPECTED = dict(enumerate(itertools.accumulate([1 - 0.1] * 40, operator.mul), start=1))


def test_a_script_is_executed_to_its_end(run_of: RunOf) -> None:
    run = run_of(params={"lr": 0.1})
    outcome = execute(run)
    assert (outcome.status, outcome.first_step, outcome.last_step) == ("done", 0, 40)
    assert losses(run) == EXPECTED
    result = run.result()
    assert result
    assert (result["columns"]["loss"], result["columns"]["best_step"], result["columns"]["steps"]) == (
        EXPECTED[40],
        40,
        40,
    )
    assert list(run.path.glob("events.out.tfevents.*"))
    provenance = json.loads(run.provenance_file.read_text())
    assert provenance["command"][1:] == ["train.py", "--lr", "0.1"]
    assert provenance["versions"]["torch"]


def test_a_stop_is_told_once_and_the_next_attempt_begins_at_its_checkpoint(run_of: RunOf) -> None:
    run = run_of(params={"lr": 0.1, **SLOW})
    stopped = execute(run, after(run, 13))
    assert stopped.status == "stopped"
    assert stopped.last_step >= 13
    assert execute(run).status == "done"
    # It saves when it is told, so nothing is repeated.
    assert steps_of(run) == list(range(1, 41))
    assert starts_of(run) == [0, stopped.last_step]
    assert losses(run) == EXPECTED
    assert [made.cause for made in run.attempts()] == ["INTERRUPTED", "DONE"]
    assert run.attempts()[1].first_step == stopped.last_step


def kill_after(run: RunDir, count: int) -> Callable[[], bool]:
    """Kills the script itself once it has made so many steps; asks for no stop."""
    killed: list[int] = []

    def look() -> bool:
        if not killed and after(run, count)():
            killed.append(int((run.work / "starts").read_text().splitlines()[-1].split()[1]))
            os.kill(killed[0], signal.SIGKILL)
        return False

    return look


def test_a_kill_repeats_only_what_came_after_the_newest_complete_checkpoint(run_of: RunOf) -> None:
    run = run_of(params={"lr": 0.1, **SLOW})
    with pytest.raises(AttemptError) as killed:
        execute(run, kill_after(run, 27))
    assert killed.value.cause == "KILLED"
    reached, newest = steps_of(run)[-1], steps_of(run)[-1] // 10 * 10
    lost = run.attempts()[0]
    assert (lost.first_step, lost.last_step, lost.reached_step) == (0, newest, reached)
    # The newest one is cut off, the temporary file of another is left.
    (run.work / "out" / f"ckpt-{newest}.json").write_text('{"step": 20, "x')
    (run.work / "out" / "ckpt-90.tmp").write_text("")
    assert execute(run).status == "done"
    before = newest - 10
    assert starts_of(run) == [0, before]
    assert steps_of(run)[reached:] == list(range(before + 1, 41))
    assert losses(run) == EXPECTED


def test_a_script_that_is_deaf_is_killed_in_time_with_all_that_it_started(run_of: RunOf, tmp_path: Path) -> None:
    code = TRAIN.replace(
        "asked = []",
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "asked = []",
    ).replace("lambda number, frame: asked.append(number)", "signal.SIG_IGN")
    run = run_of(code, params={"lr": 0.1, **SLOW})
    outcome = execute(run, after(run, 12), lambda: -1.0)
    assert outcome.status == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert execute(run).status == "done"
    assert starts_of(run)[1] in (10, 20)
    assert steps_of(run)[-1] == 40


@pytest.mark.parametrize("name", ["USR1", "HUP", "INT", "USR2"])
def test_the_signal_that_tells_it_can_be_chosen(run_of: RunOf, name: str) -> None:
    code = TRAIN.replace("signal.SIGTERM", f"signal.SIG{name}")
    run = run_of(code, params=SLOW, program={"stop": {"signal": name}})
    stopped = execute(run, after(run, 12))
    assert stopped.status == "stopped"
    assert starts_of(run) == [0]
    assert execute(run).status == "done"
    assert steps_of(run) == list(range(1, 41))


def test_a_file_can_tell_it(run_of: RunOf) -> None:
    code = TRAIN.replace("if asked or", "asked = os.path.exists('STOP')\n        if asked or")
    run = run_of(code, params=SLOW, program={"stop": {"file": "STOP"}})
    assert execute(run, after(run, 12)).status == "stopped"
    # Or the next attempt would stop at once.
    assert execute(run).status == "done"
    assert steps_of(run) == list(range(1, 41))


PREFIXES = {
    "bash with one command": "bash -c 'exec python train.py --pause 0.02'",
    "bash with two": "bash -c 'echo begins; python train.py --pause 0.02; exit $?'",
    "bash with two, and a checkpoint": "bash -c 'echo begins; python train.py --pause 0.02 \"$@\"; exit $?' run",
    "env": "env FOO=1 python train.py --pause 0.02",
    "timeout": "timeout 300 python train.py --pause 0.02",
    "timeout in env": "env A=1 timeout 300 python train.py --pause 0.02",
    "a session of its own": "setsid --wait python train.py --pause 0.02",
    "nice": "nice -n 1 python train.py --pause 0.02",
}


@pytest.mark.parametrize("command", PREFIXES.values(), ids=PREFIXES)
def test_the_script_is_told_behind_other_processes(run_of: RunOf, command: str) -> None:
    adds = command.endswith(("run", "0.02"))
    restart = {**RESTART, **({} if adds else {"add": ""})}
    run = run_of(params={}, program={"command": command, "restart": restart, "python": sys.executable})
    stopped = execute(run, after(run, 12))
    assert stopped.status == "stopped"
    # It has saved on request, at a step that it saves at no other time, unless that was by chance one of those.
    assert stopped.last_step == steps_of(run)[-1]
    if adds:
        assert execute(run).status == "done"
        assert starts_of(run) == [0, stopped.last_step]


WORKERS = """
import multiprocessing, os, pathlib, signal, sys, time

def work(name):
    signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(f"told-{name}").touch())
    pathlib.Path(f"ready-{name}").touch()
    while True:
        time.sleep(0.01)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, args=(name,), daemon=True) for name in "ab"]
    for worker in workers:
        worker.start()
    while not (pathlib.Path("ready-a").exists() and pathlib.Path("ready-b").exists()):
        time.sleep(0.01)
    pathlib.Path("steps").write_text("1 2 3")
    if sys.argv[2] == "handles":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(0.01)
"""


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("main", ["handles", "does not"])
def test_workers_of_a_loader_are_never_told(run_of: RunOf, start: str, main: str) -> None:
    command = f"bash -c 'echo begins; python train.py {start} \"{main}\"; exit $?'"
    run = run_of(WORKERS, program={"command": command, "restart": None, "python": sys.executable})
    assert execute(run, after(run, 3)).status == "stopped"
    assert not list(run.work.glob("told-*"))


@pytest.mark.parametrize(
    ("code", "cause", "said"),
    [
        ("import sys; print('oh no', file=sys.stderr); sys.exit(3)", "CRASHED", "exit code 3: oh no"),
        ("raise ValueError('bad lr')", "CRASHED", "ValueError: bad lr"),
        ("import os; os.abort()", "CRASHED", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "KILLED", "was killed"),
        ("raise MemoryError('full')", "OUT_OF_MEMORY", "MemoryError: full"),
        (
            "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('CUDA out of memory. Tried')",
            "OUT_OF_MEMORY",
            "CUDA out of memory",
        ),
        ("import no_such_module", "CRASHED", "give yours as program.python"),
    ],
)
def test_each_end_has_its_cause(run_of: RunOf, code: str, cause: str, said: str) -> None:
    run = run_of(code, program={"restart": None})
    with pytest.raises(AttemptError, match=said):
        execute(run)
    (made,) = run.attempts()
    assert made.cause == cause
    assert said in str(made.error)
    assert run.result() is None


def test_an_end_that_is_not_0_after_a_stop_is_that_of_the_stop(run_of: RunOf) -> None:
    for code in ("sys.exit(1)", "sys.exit(75)", "os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError"):
        run = run_of(TRAIN.replace("sys.exit(0)", code), params=SLOW)
        assert execute(run, after(run, 12)).status == "stopped"
        assert run.attempts()[0].cause == "INTERRUPTED"


def test_a_signal_that_comes_before_that_of_the_supervisor_is_no_crash(run_of: RunOf) -> None:
    run = run_of(
        "import os, signal, time\ntime.sleep(0.3)\nos.kill(os.getpid(), signal.SIGTERM)", program={"restart": None}
    )
    began = time.monotonic()
    # SLURM's signal for the supervisor comes late.
    ends = lambda: time.monotonic() - began > 1.5  # noqa: E731
    assert execute(run, ends).status == "stopped"


AGAIN = """
import pathlib, sys
count = len(pathlib.Path("count").read_text()) if pathlib.Path("count").exists() else 0
pathlib.Path("count").write_text("x" * (count + 1))
sys.exit(75 if count < {times} else 0)
"""


def test_75_is_executed_again_at_once(run_of: RunOf) -> None:
    run = run_of(AGAIN.replace("{times}", "3"), program={"restart": None})
    assert execute(run).status == "done"
    assert [made.cause for made in run.attempts()] == ["AGAIN", "AGAIN", "AGAIN", "DONE"]


def test_75_has_a_budget(run_of: RunOf) -> None:
    """Whoever executes it, --here included."""
    run = run_of("exit 75", name="again.sh", program={"command": "sh again.sh", "restart": None})
    with pytest.raises(RunError, match=r"AGAIN \(101 times, 100 are allowed\)"):
        execute(run)
    assert [made.cause for made in run.attempts()] == ["AGAIN"] * 101


def test_two_attempts_that_start_over_block_a_script(run_of: RunOf) -> None:
    from relay.runs.causes import why_blocked

    run = run_of(params=SLOW, program={"restart": None})
    for count, steps in ((12, [12]), (26, [12, 0]), (44, [12, 0, 0])):
        # The third one gets further than the others by chance.
        execute(run, after(run, count))
        saved = [made.steps or 0 for made in run.attempts()]
        assert [bool(each) for each in saved] == [bool(each) for each in steps]
        assert starts_of(run)[-1] == 0
    # INTERRUPTED is of the user; by time limits, it is a lack of progress.
    limited = [replace(made, cause="TIMEOUT") for made in run.attempts()]
    blocked = why_blocked(limited)
    assert blocked
    assert blocked.cause == "NO_PROGRESS"
    assert "program.restart" in blocked.advice
    assert why_blocked(limited[:2]) is None


def test_a_command_that_cannot_be_executed(run_of: RunOf) -> None:
    run = run_of(program={"command": "no_such_command --lr {lr}", "restart": None}, params={"lr": 1})
    with pytest.raises(ConfigError, match=r"program\.command: no_such_command cannot be executed: No such file"):
        execute(run)


def test_rows_of_what_was_lost_are_dropped(run_of: RunOf) -> None:
    """Even if the next attempt logs at other steps: here every third one after its start."""
    code = TRAIN.replace(
        'print(json.dumps({"step"', 'if (state["step"] - begun) % 3 == 0: print(json.dumps({"step"'
    ).replace('with open("starts"', 'begun = state["step"]\nwith open("starts"')
    run = run_of(code, params={"pause": 0.15})
    with pytest.raises(AttemptError):
        execute(run, kill_after(run, 17))
    assert list(losses(run))[-1] >= 15
    assert execute(run).status == "done"
    # From step 10: 13, 16, ... and not 12 and 15, which were of the lost steps.
    assert list(losses(run)) == [3, 6, 9, *range(13, 41, 3)]


def test_the_supervisor_may_be_killed(run_of: RunOf) -> None:
    """What its attempt has logged and it has not read is read by the next one."""
    run = run_of(params={"lr": 0.1, **SLOW}, program={"command": "python train.py --lr {lr} --pause {pause}"})
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            execute(run)
        os._exit(0)
    while not after(run, 25)():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The script dies with it, and the lock is free.
    while run.is_locked_now():
        time.sleep(0.01)
    assert execute(run).status == "done"
    assert losses(run) == EXPECTED
    assert [made.cause for made in run.attempts()] == ["KILLED", "DONE"]
    assert starts_of(run) == [0, 20]


def test_relay_current_logs_and_keeps_in_a_script(run_of: RunOf) -> None:
    code = """
import random, time, relay
run = relay.current()
state = {"x": 0.0}
run.keep(state=state)
for step in run.steps(30):
    state["x"] += random.random()
    time.sleep(0.02)
    run.log({"loss": state["x"]})
    with open("steps", "a") as file:
        print(step, file=file)
"""
    straight = run_of("import random; random.seed(0)" + code.replace("0.02", "0"), program={"restart": None})
    assert execute(straight).status == "done"
    run = run_of("import random; random.seed(0)" + code, program={"restart": None})
    stopped = execute(run, after(run, 9))
    assert stopped.status == "stopped"
    assert stopped.last_step >= 9
    assert execute(run).status == "done"
    assert losses(run) == losses(straight)
    assert steps_of(run) == list(range(30))


def test_a_shell_script_logs_by_appending_lines(run_of: RunOf) -> None:
    code = """
for step in 1 2 3; do
    echo "{\\"step\\": $step, \\"loss\\": 0.$step}" >> "$RELAY_METRICS"
done
echo "lr is $RELAY_PARAM_LR"
"""
    run = run_of(code, name="train.sh", params={"lr": 0.5}, program={"command": "bash train.sh", "restart": None})
    assert execute(run).status == "done"
    assert losses(run) == {1: 0.1, 2: 0.2, 3: 0.3}


BEFORE = {
    "bash": "bash -c 'echo begins; python train.py --pause 0.02 \"$@\"; exit $?' run",
    "setsid": "setsid --wait python train.py --pause 0.02",
}


@pytest.mark.parametrize("command", BEFORE.values(), ids=BEFORE)
def test_a_script_saves_after_what_stood_before_it_has_died_of_a_signal_to_all(run_of: RunOf, command: str) -> None:
    """As with proctrack/linuxproc, where SIGTERM of SLURM reaches each process of a task by itself."""
    slow = TRAIN.replace("        if asked:\n", "        if asked:\n            time.sleep(0.5)\n")
    slow = slow.replace("if asked or", "if asked:\n            time.sleep(0.5)\n        if asked or")
    run = run_of(slow, program={"command": command, "python": sys.executable})
    told: list[bool] = []
    others = descendants([os.getpid()])

    def stop() -> bool:
        if not told and after(run, 12)():
            told.append(True)
            for pid in filter(command_line, descendants([os.getpid()]) - others):
                os.kill(pid, signal.SIGTERM)
        return bool(told)

    stopped = execute(run, stop)
    assert stopped.status == "stopped"
    assert stopped.last_step == steps_of(run)[-1]
    assert execute(run).status == "done"
    assert steps_of(run) == list(range(1, 41))


@pytest.mark.parametrize("kind", ["pth", "finder"])
def test_an_editable_installation_leads_into_the_frozen_files(
    run_of: RunOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    project, code = tmp_path / "mine", "import json, mypkg\njson.dump(mypkg.NAME, open('found', 'w'))\n"
    (project / "src" / "mypkg").mkdir(parents=True)
    package = project / "src" / "mypkg" / "__init__.py"
    package.write_text("import os\nNAME = ['frozen', os.environ.get('THEIRS')]\n")
    venv.create(tmp_path / "env")
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    if kind == "pth":
        (site / "mypkg.pth").write_text(f"{project / 'src'}\n")
    else:
        finder = (
            "import importlib.util, sys\n"
            f"MAPPING = {{'mypkg': {str(package.parent)!r}}}\n"
            "class Finder:\n"
            "    @classmethod\n"
            "    def find_spec(cls, name, path=None, target=None):\n"
            "        if name in MAPPING:\n"
            "            return importlib.util.spec_from_file_location(name, MAPPING[name] + '/__init__.py')\n"
            "sys.meta_path.append(Finder)\n"
        )
        (site / "__editable___mypkg_finder.py").write_text(finder)
        (site / "mypkg.pth").write_text("import __editable___mypkg_finder\n")
    # Another one is executed as ever. On PYTHONPATH: that of a distribution's Python comes before the environment's.
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import os\nos.environ['THEIRS'] = 'executed'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    run = run_of(code, program={"python": str(tmp_path / "env" / "bin" / "python"), "restart": None})
    package.write_text("NAME = 'edited'\n")
    assert execute(run).status == "done"
    assert json.loads((run.work / "found").read_text()) == ["frozen", "executed"]


COUNT = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t asked;
static void ask(int number) { asked = number; }

int main(int count, char **words) {
    int step = 0, steps = atoi(words[1]);
    if (count > 2) { FILE *file = fopen(words[2], "r"); if (fscanf(file, "%d", &step) != 1) return 2; }
    signal(SIGTERM, ask);
    FILE *log = fopen(getenv("RELAY_METRICS"), "a"), *made = fopen("steps", "a");
    setlinebuf(log), setlinebuf(made);
    while (step < steps) {
        step++;
        usleep(20000);
        fprintf(log, "{\"step\": %d, \"loss\": %g}\n", step, 1.0 / step), fprintf(made, "%d\n", step);
        if (asked || step % 10 == 0) {
            char name[32];
            snprintf(name, sizeof name, "ckpt-%d.txt", step);
            FILE *file = fopen(name, "w");
            fprintf(file, "%d", step), fclose(file);
        }
        if (asked) return 0;
    }
    return 0;
}
"""


def test_a_compiled_program(run_of: RunOf, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "count.c").write_text(COUNT)
    (tmp_path / "mine" / "bin").mkdir(parents=True)
    subprocess.run([compiler, "-o", tmp_path / "mine" / "bin" / "count", tmp_path / "count.c"], check=True)
    restart = {"checkpoint": "ckpt-*.txt", "add": "{checkpoint}"}
    program = {"command": "bin/count {steps}", "restart": restart}
    # A binary file is linked, unless git tracks it.
    run = run_of(params={"steps": 40}, program=program, project={"links": ["bin"]})
    stopped = execute(run, after(run, 13))
    assert stopped.status == "stopped"
    assert execute(run).status == "done"
    assert steps_of(run) == list(range(1, 41))
    assert list(losses(run)) == list(range(1, 41))


def test_a_program_of_the_system(run_of: RunOf) -> None:
    """One that is compiled, and found on the PATH."""
    words = '{{ printf "{{\\"step\\": %d, \\"loss\\": %g}}\\n", $1, 1 / $1 > ENVIRON["RELAY_METRICS"] }}'
    run = run_of("1\n2\n4\n", name="numbers.txt", program={"command": f"awk '{words}' numbers.txt", "restart": None})
    assert execute(run).status == "done"
    assert losses(run) == {1: 1.0, 2: 0.5, 4: 0.25}


def test_frameworks_do_not_find_that_they_could_requeue(run_of: RunOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "my_job")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    code = "import json, os; json.dump({k: v for k, v in os.environ.items() if 'SLURM' in k}, open('found', 'w'))"
    run = run_of(code, program={"restart": None})
    assert execute(run).status == "done"
    found = json.loads((run.work / "found").read_text())
    assert "SLURM_NTASKS" not in found
    assert (found["SLURM_JOB_NAME"], found["SLURM_JOB_ID"]) == ("bash", "123")
