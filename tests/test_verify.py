"""`verify` finds what is not exact, names it, and says nothing of what is."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import yaml_file
from src.config.schema import Config
from tests.conftest import ROOT
from tests.fork_server import fork_python
from tests.programs import WALK, write_project

# A walk with a mistake: BEFORE stands before its loop, BODY in it.
STEP = """
import os, random, time
import relay

class Counter:
    def __init__(self):
        self.count = 0
    def state_dict(self):
        return {"count": self.count}
    def load_state_dict(self, state):
        self.count = state["count"]

class Forgets(Counter):
    def load_state_dict(self, state):
        pass

def train(run: relay.Run, steps: int = 100, seed: int = 0):
    random.seed(seed)
    state, more = {"x": 0.0}, {}
    BEFORE
    run.keep(state=state, **more)
    for step in run.steps(steps):
        state["x"] += random.gauss(0, 1)
        BODY
        run.log({"val/x2": state["x"] ** 2})
"""
NOT_EXACT = "not exact: state: other values from step"
NOT_DETERMINISTIC = "not deterministic by itself: state: other values from step 1;"
CLOSURE = """
    epoch = 0
    def count():
        nonlocal epoch
        epoch += 1
        return epoch
"""
MISTAKES = {
    "an object that is not kept": (
        "counter = Counter()",
        "counter.count += 1; state['x'] += counter.count",
        f"{NOT_EXACT} .*\n.*counter: has a state that is not kept",
    ),
    "an object that is not restored": (
        "counter = Forgets(); more = {'counter': counter}",
        "counter.count += 1",
        r"not exact: counter: not what was saved after step (\d+), in the attempt that resumed at step \1\n",
    ),
    "a generator that is not kept": ("own = random.Random(1)", "state['x'] += own.random()", NOT_EXACT),
    "an iterator that begins again": ("data = iter(range(1000))", "state['x'] += next(data)", NOT_EXACT),
    "a counter in a closure": (CLOSURE, "state['x'] += count()", NOT_EXACT),
    "a cache that grows": ("cache = []", "cache.append(step); state['x'] += len(cache)", NOT_EXACT),
    "a value that is only logged": (
        "seen = []",
        "seen.append(step); run.log({'seen': len(seen)})",
        "not exact: the logged seen: other values from step",
    ),
    "a file that is appended to": (
        "pass",
        "open('log.txt', 'a').write('.'); state['x'] += os.path.getsize('log.txt')",
        rf"stopped after .* equal bit for bit\n.*{NOT_EXACT} (\d+), in the attempt that resumed at step \d+\n",
    ),
    "a metric that nothing explains": (
        "pass",
        "run.log({'val/x2': int.from_bytes(os.urandom(4), 'big')}); continue",
        "not deterministic by itself: the logged val/x2: other values from step 1;",
    ),
    "the clock": ("pass", "state['x'] += time.time()", NOT_DETERMINISTIC),
    "the order of a set of objects": (
        # So many that their addresses differ in bits that decide the order: Python aligns its memory to 1 MiB.
        "marks = {object(): number for number in range(1000000)}\n    first = marks[next(iter(set(marks)))]",
        "state['x'] += first",
        NOT_DETERMINISTIC,
    ),
}


def verify(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"TMPDIR": str(file.parent.parent)}
    return fork_python("hpc.launch", "verify", "--config", str(file), "--cluster", "local", *words, env=env)


def left_folder(said: str) -> Path:
    """The folder that a verdict of no names."""
    found = re.search(r"the runs and their output: (\S+)", said)
    assert found, said
    return Path(found[1])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_named(tmp_path: Path, mistake: str) -> None:
    before, body, expected = MISTAKES[mistake]
    file = write_project(tmp_path / "mine", STEP.replace("BEFORE", before.strip("\n").lstrip()).replace("BODY", body))
    done = verify(file, "--steps", "12")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(expected, done.stdout, re.DOTALL), done.stdout
    folder = left_folder(done.stdout)
    assert list(folder.glob("*/stopped/output.txt")) or "by itself" in expected
    assert not (tmp_path / "mine" / "runs").exists()


def test_a_walk_is_exact_and_leaves_nothing(tmp_path: Path) -> None:
    file = write_project(tmp_path / "mine", params={"steps": 1000}, hparams={"size": [0.5, 1.0]})
    done = verify(file)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "walk:train, 60 of 1000 steps, steps=1000 size=0.5"
    assert lines[0].split("equal: ")[1] == "state, the generator of python, 60 rows"
    assert re.search(r"stopped after steps \d+, \d+, \d+ +equal bit for bit", lines[1])
    assert re.search(r"killed after step \d+ +equal bit for bit, resumed from step \d+0", lines[2])
    assert lines[4].startswith("exact: this run may be interrupted anywhere in these 60 of 1000 steps; on ")
    assert list(tmp_path.glob("relay-verify-*")) == []
    assert not (tmp_path / "mine" / "runs").exists()


BY_HAND = """
import random
import relay

def train(run: relay.Run, steps: int = 100, seed: int = 0):
    random.seed(seed)
    state = run.resume() or {"x": 0.0, "step": 0}
    for step in range(state["step"], steps):
        state["x"] += random.gauss(0, 1)
        run.log({"val/x2": state["x"] ** 2}, step=step + 1)
        state["step"] = step + 1
        if run.should_stop() or state["step"] % 5 == 0:
            run.save(SAVED, step + 1)
        if run.should_stop():
            return
"""


def test_a_loop_of_ones_own_is_exact_or_not(tmp_path: Path) -> None:
    done = verify(write_project(tmp_path / "mine", BY_HAND.replace("SAVED", "state")), "--steps", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"killed after step \d+ +equal bit for bit, resumed from step \d*[05]\n", done.stdout)
    saved = "{**state, 'x': round(state['x'], 2)}"
    done = verify(write_project(tmp_path / "mine", BY_HAND.replace("SAVED", saved)), "--steps", "20")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"not exact: the logged val/x2: other values from step \d+, in the attempt", done.stdout)


STOPS_EARLY = """
import random
import relay

def train(run: relay.Run, steps: int = 100, seed: int = 0):
    random.seed(seed)
    state = {"x": 0.0, "best": 1e9, "since": 0}
    run.keep(state=state)
    for step in run.steps(steps):
        state["x"] += random.gauss(0, 1)
        state["since"] = 0 if abs(state["x"]) < state["best"] else state["since"] + 1
        state["best"] = min(abs(state["x"]), state["best"])
        run.log({"val/x2": state["x"] ** 2})
        if state["since"] == 10:
            break
"""


def test_a_run_that_stops_early_is_exact_if_it_keeps_why(tmp_path: Path) -> None:
    done = verify(write_project(tmp_path / "mine", STOPS_EARLY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"walk:train, [1-5]\d of 100 steps", done.stdout), done.stdout
    code = STOPS_EARLY.replace("run.keep(state=state)", "own = {'x': state['x']}; run.keep(own=own)")
    code = code.replace('state["x"] += random.gauss(0, 1)', 'own["x"] += random.gauss(0, 1); state["x"] = own["x"]')
    done = verify(write_project(tmp_path / "mine", code))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not exact: " in done.stdout


def test_what_is_logged_twice_in_a_step_counts_twice(tmp_path: Path) -> None:
    """In a loop of its own, whose rows are not merged; and what is not kept is logged first."""
    code = BY_HAND.replace("run.log({", "counted = counted + 1; run.log({'count': counted}, step=step + 1); run.log({")
    code = code.replace("    for step", "    counted = 0\n    for step").replace("SAVED", "state")
    done = verify(write_project(tmp_path / "mine", code), "--steps", "20")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not exact: the logged count: other values from step" in done.stdout


def test_a_large_state_is_compared_at_its_end(tmp_path: Path) -> None:
    code = STEP.replace("BEFORE", "import torch; big = Big(); more = {'big': big}").replace("BODY", "big.count += 1")
    code = code.replace(
        "class Forgets",
        """class Big(Counter):
    def state_dict(self):
        import torch
        return {"count": self.count, "weights": torch.zeros(26_000_000)}
    def load_state_dict(self, state):
        pass

class Forgets""",
    )
    done = verify(write_project(tmp_path / "mine", code, params={"steps": 8}))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not exact: big: " in done.stdout


def test_what_differs_without_a_stop_is_not_compared_if_it_is_only_logged(tmp_path: Path) -> None:
    code = WALK.replace('run.log({"x"', 'run.log({"speed": time.time(), "x"').replace(
        "import relay", "import relay; random.seed(3)"
    )
    done = verify(write_project(tmp_path / "mine", code.replace("    random.seed(p.seed)", "")), "--steps", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the logged speed: differ without a stop, and are not compared" in done.stdout


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (WALK.replace("state = {", "raise ValueError('no data') #"), "ValueError: no data"),
        (WALK.replace("range", "run").replace("p.steps)", "3)"), "the run makes 3 steps, and to interrupt it"),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, code: str, reason: str) -> None:
    done = verify(write_project(tmp_path / "mine", code))
    assert done.returncode == 2
    assert "error: verify: " in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    left = [path for path in tmp_path.glob("relay-verify-*") if str(path) not in done.stderr]
    assert left == []


def test_the_experiment_on_images_is_exact(small: Callable[..., Config], tmp_path: Path) -> None:
    file = tmp_path / "mine" / "small.yaml"
    file.parent.mkdir()
    file.write_text(yaml_file.dump_yaml(small(hparams={"lr": [0.001, 0.002], "epochs": 2}).to_dict()))
    done = verify(file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: threads, numerics, model_state_dict, optimizer, random, " in done.stdout
    assert "exact: this run may be interrupted anywhere" in done.stdout


def torch_project(folder: Path, **params: object) -> Path:
    return write_project(folder, (ROOT / "tests" / "exact_program.py").read_text(), params=params)


def test_all_that_a_training_has_is_exact(tmp_path: Path) -> None:
    """Accumulated gradients in lower precision, two optimizers, averaged weights, a frozen teacher, loader workers."""
    done = verify(torch_project(tmp_path / "mine"), "--steps", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "walk:train, 20 of 800 steps" in done.stdout
    assert "exact: this run may be interrupted anywhere" in done.stdout


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            {"forget": ["first", "schedule", "scaler", "noise"]},
            r"not exact: generator.*\nfirst, schedule, scaler: has a state that is not kept",
        ),
        # A loader that begins again, and gradients that are accumulated over steps.
        ({"own_loader": True, "between_steps": True, "workers": 2}, "not exact: generator"),
    ],
    ids=str,
)
def test_what_a_training_forgets_is_named(tmp_path: Path, params: dict[str, object], expected: str) -> None:
    done = verify(torch_project(tmp_path / "mine", **{"workers": 0, **params}), "--steps", "6")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(expected, done.stdout), done.stdout
