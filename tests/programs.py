"""Projects of users, for tests: a folder with a program and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.config import yaml_file

# Sums what it draws: without torch, so that it starts in a moment.
WALK = """
import random, time
from dataclasses import dataclass
import relay

@dataclass
class Params:
    steps: int = 30
    size: float = 1.0
    pause_s: float = 0.0
    seed: int = 0

def train(run: relay.Run, p: Params):
    random.seed(p.seed)
    state = {"x": 0.0}
    run.keep(state=state)
    for step in run.steps(p.steps):
        state["x"] += random.gauss(0, p.size)
        time.sleep(p.pause_s)
        run.log({"x": state["x"]})
        if (step + 1) % 10 == 0:
            run.log({"val/x2": state["x"] ** 2}, best=state)
    print("walked to", state["x"])
"""


def write_project(folder: Path, code: str = WALK, **changes: Any) -> Path:
    """Write a project with `code` as walk.py into `folder`. Returns its relay.yaml."""
    folder.mkdir(exist_ok=True)
    (folder / "walk.py").write_text(code)
    content = {
        "program": {"function": "walk:train"},
        "metrics": {"select": {"name": "val/x2", "direction": "min"}},
        "paths": {f"{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")},
        **changes,
    }
    (folder / "relay.yaml").write_text(yaml_file.dump_yaml(content))
    return folder / "relay.yaml"


def curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a metrics log without the clock's values."""
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]
