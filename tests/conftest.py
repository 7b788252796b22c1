"""Shared fixtures: small experiments on images that are generated once per session, fake SLURM commands, exact
comparison.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from relay.files import read_lines
from relay.log import LEVEL_VARIABLE, start_log
from relay.runs.rundir import RunDir
from src.config.loading import make_config
from src.config.schema import Config

# The networks are tiny, and several tests run at a time: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The profile that whoever runs the tests prefers.
os.environ.pop("RELAY_CLUSTER", None)
# pytest-xdist sets it, and piped tables keep to it.
os.environ.pop("COLUMNS", None)

ROOT = Path(__file__).resolve().parent.parent

# 4 classes x 24 images of 16x16 pixels: an epoch has 6 steps and takes less than a second.
SMALL: dict[str, Any] = {
    "dataset": {
        "name": "synthetic",
        "classes": 4,
        "synthetic_train_per_class": 24,
        "synthetic_valid_per_class": 10,
        "split": {"val": 20, "test": 20},
        "num_workers": 0,
    },
    "preprocess": {"resize": [16, 16]},
    "augment": {
        "random_flip": True,
        "random_crop": {"size": 16, "padding": 2},
        "color_jitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.02},
    },
    "model": {
        "num_classes": 4,
        "input_shape": [3, 16, 16],
        "num_modules": 1,
        "branch_channels": [3, 4, 5],
        "stem_channels": 6,
        "dropout": 0.2,
    },
    "train": {"batch_size": 16, "epochs": 3, "device": "cpu", "optimizer": {"name": "adam", "lr": 0.002}},
    "metrics": {"log_every_steps": 4},
    "lr_finder": {"num_steps": 20},
    "hparams": {"epochs": 2, "lr": [0.001, 0.01], "num_modules": [1, 2]},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long files first, so that no xdist worker ends with one of them alone."""
    long_first = ["test_local_pool.py", "test_commands.py", "test_dataset.py", "test_trainer.py"]
    items.sort(key=lambda item: long_first.index(item.path.name) if item.path.name in long_first else len(long_first))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it would look at all of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def close_fork_server() -> Iterator[None]:
    """Stop the fork server, if a test has started it, at the end of the session."""
    yield
    from tests.fork_server import fork_server

    if fork_server.cache_info().currsize:
        fork_server().close()


@pytest.fixture(autouse=True)
def log_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as a command without options does, whatever an earlier test has set."""
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)
    start_log()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of a test run share. What is made there is made under a lock."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the decoded images, shared by the session."""
    return tmp_path_factory.mktemp("data")


def small_config(data_root: Path, folder: Path, **overrides: Any) -> Config:
    """A small experiment whose results go into `folder`. Overrides are key paths with `__` for each dot."""
    fixed = {
        "dataset.root": str(data_root),
        **{f"paths.{n}_dir": str(folder / n) for n in ("runs", "artifacts", "logs")},
    }
    given = {path.replace("__", "."): value for path, value in overrides.items()}
    return make_config(SMALL, "the test's experiment", {**fixed, **given})


@pytest.fixture
def small(data_root: Path, tmp_path: Path) -> Callable[..., Config]:
    """`small_config` with results in the test's own folder."""
    return functools.partial(small_config, data_root, tmp_path)


def asked(config: Config, lr_factors: Sequence[float] = ()) -> dict[str, Any]:
    """What a pipeline of this experiment is asked for."""
    return {"config": config.to_dict(), "options": {"lr_factors": list(lr_factors)}}


@pytest.fixture
def small_file(small: Callable[..., Config], tmp_path: Path) -> Path:
    """The experiment of `small` as a YAML file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml_file.dump_yaml(small().to_dict()))
    return path


def fake(folder: Path, name: str, script: str) -> None:
    """Write a fake SLURM command, a bash script, to a folder of the PATH."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# The programs that the fake commands and the product call.
_TOOLS = (
    *("awk", "bash", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "false", "git", "grep"),
    *("head", "kill", "ls", "mkdir", "mv", "printf", "rm", "sed", "seq", "sh", "sleep", "sort", "tail", "touch", "tr"),
    *("true", "wc"),
)


def site_path(folder: Path) -> str:
    """A PATH with the fake commands in `folder` and a few tools, but without a SLURM that may be installed here."""
    tools = folder.with_name(f"{folder.name}-tools")
    tools.mkdir()
    for name in _TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    return f"{folder}{os.pathsep}{tools}"


@pytest.fixture
def holder(run: RunDir, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the run: the script HOLD of the test's module."""
    command = [sys.executable, "-c", request.module.HOLD, str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for fake SLURM commands, first on the PATH. Retries do not sleep."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", site_path(folder))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return folder


def command_environment(changes: dict[str, str] | None) -> dict[str, str]:
    """The environment of a command: this one, with the project on PYTHONPATH, a wide terminal, and the changes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000", **(changes or {})}


def run_python(
    *words: str, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """`python -m words...`, as a user runs it."""
    command = [sys.executable, "-m", *words]
    full = command_environment(env)
    return subprocess.run(command, cwd=cwd, env=full, capture_output=True, text=True, timeout=timeout, check=False)


# The clock's values in a metric row. Everything else is equal bit for bit, however often a run was interrupted.
_TIMING_KEYS = frozenset({"time", "train/images_per_s"})


def final_state(run: RunDir) -> dict[str, Any]:
    """The exact state at the end of a run, and its metric rows and result without times."""
    from relay.program.serialization import from_bytes
    from relay.program.states import list_states

    states = list_states(run.checkpoints)
    # A script has its own, of which its rows tell enough.
    assert states or run.sources_file.exists()
    state: dict[str, Any] = from_bytes(states[0].read_bytes()) if states else {}
    for timed_entry in ("train_seconds", "metrics_bytes", "metrics_digest"):
        state.pop(timed_entry, None)
    if "torch" in state.get("generators", {}):
        # A program with torch draws from its generator alone, and seeds no other.
        state["generators"] = {"torch": state["generators"]["torch"]}
    rows = [{k: v for k, v in row.items() if k not in _TIMING_KEYS} for row in read_lines(run.metrics_file)]
    result = run.result() or {}
    # And where else a script may have looked for modules, which differs by how the tests are called.
    timed = ("train_seconds", "train_s", "images_per_s", "host_mb", "gpu_mb", "elsewhere")
    columns = {k: v for k, v in result.get("columns", {}).items() if k not in timed}
    measured = {**{k: v for k, v in result.items() if k not in timed}, "columns": columns}
    return {
        "state": state,
        "rows": rows,
        "result": measured,
        "best": from_bytes(run.best_file.read_bytes())["model_state_dict"] if run.best_file.exists() else None,
        "predictions": run.predictions_file.read_bytes() if run.predictions_file.exists() else None,
    }


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """The key paths at which two nested values differ. Tensors are compared bit for bit."""
    import torch

    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [path]
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        missing = [f"{path}.{key}" for key in keys if (key in first) != (key in second)]
        return missing + [
            d for key in first.keys() & second.keys() for d in differences(first[key], second[key], f"{path}.{key}")
        ]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{path} (lengths {len(first)} and {len(second)})"]
        return [
            d for i, (a, b) in enumerate(zip(first, second, strict=True)) for d in differences(a, b, f"{path}[{i}]")
        ]
    return [] if type(first) is type(second) and first == second else [f"{path} ({first!r} and {second!r})"]


def assert_same_run(first: RunDir, second: RunDir) -> None:
    """Assert that both runs ended with equal weights, optimizer, random states, metrics and results."""
    a, b = final_state(first), final_state(second)
    assert len(a["rows"]) > 3
    assert differences(a, b) == []
