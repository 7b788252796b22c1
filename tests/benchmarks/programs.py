"""What Relay adds to a user's own function: to each step, and to its start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.node.supervisor import supervise
from relay.progress import PlainReporter
from relay.projects.config import load_program
from relay.projects.request import train_request
from relay.runs.lifecycle import attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from tests.benchmarks.table import Row, in_turn
from tests.conftest import ROOT
from tests.programs import write_project

# The same loop, with Relay and without; both print how long a step took, in seconds.
_LOOPS = """
import sys, time
sys.path.insert(0, "EXAMPLE")
import torch
from char_lm import CharLM, Params, loss_of

def build(p):
    torch.manual_seed(p.seed)
    raw = open("EXAMPLE/data/sonnets.txt").read()
    numbers = {character: number for number, character in enumerate(sorted(set(raw)))}
    text = torch.tensor([numbers[character] for character in raw])
    model = CharLM(len(numbers), p.width)
    return text, model, torch.optim.AdamW(model.parameters(), lr=p.lr)

def body(text, model, optimizer, p):
    loss = loss_of(model, text, p)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def train(run, steps: int = 300, empty: bool = False):
    p = Params()
    text, model, optimizer = build(p)
    if RELAY:
        run.keep(model=model, optimizer=optimizer)
    begun = None
    for step in run.steps(steps) if RELAY else range(steps):
        if step == 10:
            begun = time.perf_counter()
        loss = 1.0 if empty else body(text, model, optimizer, p)
        if RELAY:
            run.log({"train/loss": loss})
    print("a step took", (time.perf_counter() - begun) / (steps - 10), flush=True)
"""
_PLAIN = "\nif __name__ == '__main__':\n    train(None, int(sys.argv[1]), sys.argv[2] == 'True')\n"
_FIRST_LINE = "import time\ndef train(run):\n    open({file!r}, 'w').write(str(time.time()))\n"


def program_rows(pairs: int) -> Iterator[Row]:
    """A step of the example's model, an empty step, and the time until the function is called."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for steps, empty, what, target in (
            (300, False, "a step of a character model, with its row", "1.02"),
            (20_000, True, "an empty step, with its row", "20 us more"),
        ):
            sides = _sides(folder, steps, empty=empty)
            found = in_turn(sides, pairs)
            yield Row(what, "a plain loop", "s", found["ours"], found["plain"], target)
        found = in_turn(_starts(folder), pairs)
        yield Row("a program from its start to its first line", "python train.py", "s", *found.values(), "0.3 s more")


def _sides(folder: Path, steps: int, *, empty: bool) -> dict[str, Callable[[], float]]:
    """Seconds per step."""
    loops = _LOOPS.replace("EXAMPLE", str(ROOT / "examples" / "own_function"))
    plain = folder / "plain.py"
    plain.write_text(loops.replace("RELAY", "False") + _PLAIN)
    env = {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PATH": "/usr/bin:/bin"}

    def theirs() -> float:
        command = [sys.executable, str(plain), str(steps), str(empty)]
        # The example imports relay.
        said = subprocess.run(
            command, env={**env, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
        ).stdout
        return float(said.split()[-1])

    def ours() -> float:
        # No state is saved in between: only what is done at every step counts.
        params = {"steps": steps, "empty": empty}
        run = _run(folder / "mine", loops.replace("RELAY", "True"), params=params, checkpoint={"every_minutes": None})
        command = [sys.executable, "-m", "tests.benchmarks.programs", str(run.path)]
        said = subprocess.run(
            command, cwd=ROOT, env={**env, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
        ).stdout
        return float(said.partition("a step took")[2].split()[0])

    return {"ours": ours, "plain": theirs}


def _starts(folder: Path) -> dict[str, Callable[[], float]]:
    """Seconds from the start of a process to the first line of the function."""
    seen = folder / "seen"
    code = _FIRST_LINE.format(file=str(seen))
    plain = folder / "start.py"
    plain.write_text(f"{code}\ntrain(None)\n")

    def theirs() -> float:
        begun = time.time()
        subprocess.run([sys.executable, str(plain)], check=True)
        return float(seen.read_text()) - begun

    def ours() -> float:
        run = _run(folder / "started", code)
        begun = time.time()
        execute(run)
        return float(seen.read_text()) - begun

    return {"ours": ours, "plain": theirs}


def _run(folder: Path, code: str, **changes: object) -> RunDir:
    file = str(write_project(folder, code, **changes))
    return open_sweep(train_request(load_program(file), file), fresh=True)[0].runs()[0]


def execute(run: RunDir) -> None:
    """Execute the program of a run."""
    attempt(run, lambda *given: supervise(*given, lambda: 60.0), lambda: False, PlainReporter())


if __name__ == "__main__":
    execute(RunDir(Path(sys.argv[1])))
