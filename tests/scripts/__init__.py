"""Scripts of users that know nothing of Relay, for tests, and the tests of relay/scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.config import yaml_file

# Counts, and keeps what it has counted. Each start appends a line to `starts`, each step one to `steps`.
TRAIN = """
import argparse, json, os, pathlib, signal, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--save-every", type=int, default=10)
parser.add_argument("--resume")
given = parser.parse_args()
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
out = pathlib.Path("out")
out.mkdir(exist_ok=True)
state = {"step": 0, "x": 1.0}
if given.resume:
    state = json.loads(pathlib.Path(given.resume).read_text())
with open("starts", "a") as starts:
    print(state["step"], os.getpid(), file=starts)
with open(out / "log.jsonl", "a") as log, open("steps", "a") as steps:
    while state["step"] < given.steps:
        state = {"step": state["step"] + 1, "x": state["x"] * (1 - given.lr)}
        time.sleep(given.pause)
        print(json.dumps({"step": state["step"], "loss": state["x"]}), file=log, flush=True)
        print(state["step"], file=steps, flush=True)
        if asked or state["step"] % given.save_every == 0:
            file = out / f"ckpt-{state['step']}.json"
            file.with_suffix(".tmp").write_text(json.dumps(state))
            file.with_suffix(".tmp").rename(file)
        if asked:
            sys.exit(0)
"""
RESTART = {"checkpoint": "out/ckpt-*.json", "add": "--resume {checkpoint}"}


def write_script(folder: Path, code: str = TRAIN, *, name: str = "train.py", **changes: Any) -> Path:
    """Write a script and the relay.yaml that executes it. Returns the latter."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(code)
    (folder / name).chmod(0o755)
    program = {"command": "python train.py {args}", "restart": RESTART, **changes.pop("program", {})}
    content = {
        "program": program,
        "metrics": {"select": {"name": "loss", "direction": "min"}},
        "paths": {f"{each}_dir": str(folder / each) for each in ("runs", "artifacts", "logs")},
        **changes,
    }
    (folder / "relay.yaml").write_text(yaml_file.dump_yaml(content))
    return folder / "relay.yaml"
