"""What Relay adds to a user's own function: to each step, and to its start."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hpc.node.supervisor import supervise
from relay.program.contract import Order
from relay.program.run import Run
from relay.progress import PlainReporter
from relay.projects.config import load_program
from relay.projects.request import train_request
from relay.runs.lifecycle import attempt
from relay.runs.sweeps import open_sweep
from tests.benchmarks.table import Row, in_turn
from tests.conftest import ROOT
from tests.programs import write_project

_EXAMPLE = ROOT / "examples" / "char_lm"
_WARM_UP = 10
# Prints when its function is called.
_FIRST_LINE = "import time\ndef train(run):\n    open({file!r}, 'w').write(str(time.time()))\n"


def program_rows(pairs: int) -> Iterator[Row]:
    """A step of the example's model, an empty step, and the time until the function is called."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = in_turn(_sides(folder, 300, _training()), pairs)
        what = "a step of a character model with keep, steps and log"
        yield Row(what, "a plain loop", "s", found["ours"], found["plain"], "1.02")
        found = in_turn(_sides(folder, 20_000, lambda: (lambda: 1.0, {})), pairs)
        yield Row("an empty step with keep, steps and log", "a plain loop", "s", *found.values(), "20 us more")
        found = in_turn(_starts(folder), pairs)
        yield Row("a program from its start to its first line", "python train.py", "s", *found.values(), "0.3 s more")


# Makes the body of a step, and what is kept.
_Make = Callable[[], tuple[Callable[[], Any], dict[str, Any]]]


def _training() -> _Make:
    sys.path.insert(0, str(_EXAMPLE))
    example: Any = importlib.import_module("char_lm")
    params = example.Params()
    raw = (_EXAMPLE / params.text).read_text()
    numbers = {character: number for number, character in enumerate(sorted(set(raw)))}
    text = torch.tensor([numbers[character] for character in raw])

    def make() -> tuple[Callable[[], Any], dict[str, Any]]:
        torch.manual_seed(0)
        model = example.CharLM(len(numbers), params.width)
        optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr)

        def step() -> torch.Tensor:
            loss: torch.Tensor = example.loss_of(model, text, params)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return loss

        return step, {"model": model, "optimizer": optimizer}

    return make


def _sides(folder: Path, steps: int, make: _Make) -> dict[str, Callable[[], float]]:
    """Seconds per step, in this process."""

    def ours() -> float:
        body, kept = make()
        with tempfile.TemporaryDirectory(dir=folder) as name:
            run = Run(_order(Path(name)))
            run.keep(**kept)
            for index in run.steps(steps):
                if index == _WARM_UP:
                    begun = time.perf_counter()
                run.log({"train/loss": body()})
                if index == steps - 1:
                    return (time.perf_counter() - begun) / (steps - _WARM_UP)
        raise AssertionError

    def theirs() -> float:
        body, _ = make()
        for index in range(steps):
            if index == _WARM_UP:
                begun = time.perf_counter()
            body()
        return (time.perf_counter() - begun) / (steps - _WARM_UP)

    return {"ours": ours, "plain": theirs}


def _order(folder: Path) -> Order:
    files = {name: str(folder / name) for name in ("reports", "metrics", "checkpoints", "best")}
    places = {"root": str(folder), "folder": str(folder), "work": str(folder), "owner": "", "token": ""}
    return Order(
        function="",
        params={},
        label="bench",
        key="",
        attempt=1,
        select="",
        direction="min",
        **files,
        **places,  # type: ignore[arg-type]
    )


def _starts(folder: Path) -> dict[str, Callable[[], float]]:
    """Seconds from the start of a process to the first line of the function."""
    seen = folder / "seen"
    code = _FIRST_LINE.format(file=str(seen))
    plain = folder / "start.py"
    plain.write_text(f"{code}\ntrain(None)\n")
    file = str(write_project(folder / "started", code))

    def theirs() -> float:
        begun = time.time()
        subprocess.run([sys.executable, str(plain)], check=True)
        return float(seen.read_text()) - begun

    def ours() -> float:
        run = open_sweep(train_request(load_program(file), file), fresh=True)[0].runs()[0]
        begun = time.time()
        attempt(run, lambda *given: supervise(*given, lambda: 60.0), lambda: False, PlainReporter())
        return float(seen.read_text()) - begun

    return {"ours": ours, "plain": theirs}
