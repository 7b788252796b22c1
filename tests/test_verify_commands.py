"""`verify` of commands: what is exact, what resumes otherwise, what starts over, and what differs by itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fork_server import fork_python
from tests.scripts import TRAIN, write_script

PARAMS = {"lr": 0.1, "pause": 0.06}
BODY = 'state = {"step": state["step"] + 1, "x": state["x"] * (1 - given.lr)}'


def verify(folder: Path, code: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    file = write_script(folder, code, **{"params": PARAMS, **changes})
    return fork_python("hpc.launch", "verify", "--config", str(file))


def changed(old: str, new: str) -> str:
    assert TRAIN.count(old) == 1
    return TRAIN.replace(old, new)


def test_an_exact_script(tmp_path: Path) -> None:
    done = verify(tmp_path, TRAIN, verify={"params": {"steps": 60}, "compare": ["out/ckpt-60.json"]})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "python train.py {args}, 60 steps, lr=0.1 pause=0.06 steps=60" in done.stdout
    assert "equal: 60 rows, loss, out/ckpt-60.json" in done.stdout
    assert len(re.findall("equal bit for bit", done.stdout)) == 2
    assert "a stop was answered after 0." in done.stdout
    assert "exact: this command may be interrupted anywhere" in done.stdout
    # Nothing of it reaches the user's folders.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["relay.yaml", "train.py"]


MOMENTUM = changed(
    BODY, f"velocity = 0.9 * velocity + given.lr\n        {BODY.replace('given.lr', 'velocity * 0.1')}"
).replace("asked = []", "asked = []\nvelocity = 0.0")
OTHERS = {
    "a velocity that is not kept": (MOMENTUM, r"resumes, but not exactly: loss 0\.\d+ against 0\.\d+ from step \d+"),
    "a checkpoint that is not read": (
        changed("if given.resume:", "if False:"),
        "starts over: what was interrupted is made again from its beginning",
    ),
    "a generator without a seed": (
        changed(BODY, BODY.replace("given.lr", "given.lr * random.random()")).replace(
            "import arg", "import random, arg"
        ),
        r"not deterministic by itself: loss 0\.\d+ against 0\.\d+ from step 1;",
    ),
    "a file that grows": (
        changed('print(state["step"], file=steps, flush=True)', 'print(state["step"], file=open("out/grows", "a"))'),
        r"resumes, but not exactly: out/grows differs",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_exact_is_named(tmp_path: Path, name: str) -> None:
    code, said = OTHERS[name]
    compare = {"verify": {"compare": ["out/grows"]}} if "grows" in code else {}
    # Steps after the 25th one are lost with a kill.
    done = verify(tmp_path, code, **compare, params={**PARAMS, "save-every": 25})
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(said, done.stdout), done.stdout
    assert "the runs and their output" in done.stdout


def test_what_differs_by_itself_is_not_compared(tmp_path: Path) -> None:
    code = changed('"loss": state["x"]}', '"loss": state["x"], "speed": time.time()}')
    done = verify(tmp_path, code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "speed: differ without a stop, and are not compared" in done.stdout


def test_a_script_that_logs_at_its_end_is_stopped_after_seconds(tmp_path: Path) -> None:
    code = changed('with open(out / "log.jsonl", "a") as log', 'with open("all", "a") as log').replace(
        "        if asked:\n            sys.exit(0)\n",
        "        if asked:\n            sys.exit(0)\n"
        "pathlib.Path('out/log.jsonl').write_text(pathlib.Path('all').read_text())\n",
    )
    # Long enough for a busy machine: it is stopped in the midst of it.
    done = verify(tmp_path, code, params={**PARAMS, "pause": 0.15})
    assert re.search(r"stopped after [\d.]+ s +equal bit for bit", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "changes", "said"),
    [
        (changed("file=log", "file=steps"), {}, "there is nothing to compare"),
        (TRAIN, {"verify": {"compare": ["out/no.txt"]}}, "verify.compare: out/no.txt: the command has written no such"),
        (changed("import argparse", "import argparze"), {}, "No module named 'argparze'"),
        (TRAIN, {"verify": {"params": {"stepz": 3}}}, "unrecognized arguments: --stepz"),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, code: str, changes: dict[str, Any], said: str) -> None:
    done = verify(tmp_path, code, **changes)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_number_of_steps_is_a_parameter_of_a_command(tmp_path: Path) -> None:
    file = write_script(tmp_path, params=PARAMS)
    done = fork_python("hpc.launch", "verify", "--config", str(file), "--steps", "10")
    assert done.returncode == 2
    assert "verify.params" in done.stderr
