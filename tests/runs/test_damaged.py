"""Whatever bytes the files of a run directory hold: each command ends with a message or a result, never a traceback.

A case damages one file and calls one command. `RELAY_HUNT_S=300 pytest tests/runs/test_damaged.py` hunts for so many
seconds from a seed of its own, which it names with what it finds; RELAY_HUNT_SEED goes back to one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import typer
import yaml

from hpc.pipeline.directory import StageRecord, make_pipeline
from hpc.submission.profile import load_profile
from hpc.works import WORKS
from relay.cli import EXIT_STOPPED, run_app
from relay.config import yaml_file
from relay.files import append_lines
from relay.program.serialization import to_bytes
from relay.program.states import list_states, state_name
from relay.progress import PlainReporter
from relay.runs.lifecycle import AttemptHooks, attempt
from relay.runs.sweeps import open_sweep, sweeps
from src.artifacts import export_best
from src.config.loading import load_config
from src.requests import compare_request, grid_request
from src.training.trainer import train
from tests.conftest import asked, fake, small_config

CASES = 60
CHANGES = {
    "hparams": {"lr": [0.001, 0.002, 0.01]},
    "compare__variants": {"low": {"lr": 0.0001}},
    "train__max_steps": 4,
    "checkpoint__every_steps": 1,
    "metrics__log_every_steps": 1,
}
JUNK: list[Any] = [
    *(None, True, -1, 0, 3, 1e308, 10**30, 2**63, float("nan"), float("inf"), "", "x", "../../x", ".", "\0", "\ud800"),
    *("[/red]", "9" * 300, [], {}, [1, [2]], {"a": 1}, [None], {"": {}}),
]
BYTES = [b"", b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\x00\xfe", b"[" * 5000, b'{"a":' * 5000, b"NaN\n", b"\0" * 99]
YAML = [
    *(
        "!!set {a}",
        "&x [*x]",
        "~",
        "[]",
        "{}",
        "18446744073709551616",
        "!!binary aGk=",
        "-1",
        "1e400",
        '"\\0"',
        "!!bool x",
    ),
    *(
        "!!timestamp 2026-01-01",
        "{1: 2}",
        "'",
        "*y",
        "!!python/name:os.system",
        "[/red]",
        "x",
        "0",
        "2026-01-01",
        "true",
    ),
]


class OfAJob(AttemptHooks):
    """Run as an attempt of SLURM's job 70_1."""

    def facts(self) -> dict[str, str]:
        return {"job": "70_1", "cluster": "c"}


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid of which two cells are done and one is interrupted, its best weights, a comparison of two
    trainings, and a pipeline.
    """
    folder = tmp_path_factory.mktemp("whole")
    # Every case restores it under this name, because the files of a run hold its path.
    place = folder / "case"
    config = small_config(data_root, place, **CHANGES)
    place.mkdir()
    (place / "config.yaml").write_text(yaml_file.dump_yaml(config.to_dict()))
    sweep, _ = open_sweep(grid_request(config))
    first, other, second = sweep.runs()
    comparison, _ = open_sweep(compare_request(config))
    for run in (first, other, *comparison.runs()):
        attempt(run, train, lambda: False, PlainReporter())
    export_best(first, first.result() or {})
    answers = iter([False, False, True])
    attempt(second, train, lambda: next(answers, True), PlainReporter(), OfAJob())
    second.record_attempt(2, start=2.0, job="70_1", cluster="c", node="n", pid=1)
    second.cancel()
    append_lines(
        sweep.submissions_file, [{"job_name": "relay-x.1", "tasks": [[first.name], [second.name]], "time": 1.0}]
    )
    append_lines(sweep.submissions_file, [{"job_name": "relay-x.1", "job_id": "70", "time": 2.0}])
    pipeline = make_pipeline(asked(config, [0.5]), fresh=True)
    pipeline.use_profile(*load_profile("local"))
    pipeline.record_stage(StageRecord("grid", "planned", sweep.name))
    pipeline.record_job("relay-x.2", after="grid")
    # The code is not damaged here, and copying it would take longer than all else.
    for number, code in enumerate(place.glob("runs/*/code")):
        kept = code.rename(folder / f"code-{number}")
        code.symlink_to(kept)
    place.rename(folder / "kept")
    return folder


def change_value(value: Any, choose: random.Random) -> Any:
    """The value with something in it replaced, removed or added."""
    if isinstance(value, dict) and value and choose.random() < 0.9:
        key = choose.choice(list(value))
        how = choose.random()
        if how < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if how < 0.2:
            return {**value, choose.choice(["x", "error", "end", "tasks", "job_id"]): choose.choice(JUNK)}
        return {**value, key: change_value(value[key], choose)}
    if isinstance(value, list | tuple) and value and choose.random() < 0.8:
        at = choose.randrange(len(value))
        return [*value[:at], change_value(value[at], choose), *value[at + 1 :]]
    if isinstance(value, torch.Tensor) and choose.random() < 0.8:
        others = [
            value[None],
            value.double(),
            value.int(),
            value.to_sparse(),
            value.to(torch.complex64),
            value.flatten()[:1],
        ]
        return choose.choice(others)
    return choose.choice(JUNK)


def change_bytes(content: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(content) + 1)
    how = choose.randrange(6)
    if how == 0 and content:
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ 1 << choose.randrange(8)]) + content[at + 1 :]
    if how == 1:
        return content[:at]
    if how == 2:
        return content[:at] + choose.randbytes(choose.randrange(1, 9)) + content[at:]
    if how == 3:
        return content[:at] + content[at + choose.randrange(1, 30) :]
    if how == 4:
        lines = content.split(b"\n")
        choose.shuffle(lines)
        return b"\n".join(lines)
    return choose.choice(BYTES)


def change_json(content: bytes, choose: random.Random) -> bytes:
    lines = content.splitlines() if content.count(b"\n{") else [content]
    at = choose.randrange(len(lines))
    lines[at] = json.dumps(change_value(json.loads(lines[at]), choose)).encode()
    return b"\n".join(lines) + b"\n"


def change_yaml(content: bytes, choose: random.Random) -> bytes:
    if choose.random() < 0.5:
        # Anything that YAML can say, at any depth.
        changed = change_value(yaml.safe_load(content), choose)
        return yaml.safe_dump(changed, allow_unicode=True).encode(errors="surrogateescape")
    lines = content.decode().splitlines()
    at = choose.randrange(len(lines))
    name, colon, _ = lines[at].partition(":")
    lines[at] = f"{name}{colon} {choose.choice(YAML)}"
    return "\n".join(lines).encode()


def change_pickle(content: bytes, choose: random.Random, path: Path) -> bytes:
    if choose.random() < 0.1:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/data.pkl", choose.choice(BYTES))
        return path.read_bytes()
    path.write_bytes(content)
    changed = change_value(torch.load(path, weights_only=True), choose)
    return to_bytes(changed) if isinstance(changed, dict) else _saved(changed, path)


def _saved(content: Any, path: Path) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


def flip(content: bytes, choose: random.Random) -> bytes:
    changed = bytearray(content)
    changed[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    return bytes(changed)


def damage(path: Path, choose: random.Random) -> None:
    content = path.read_bytes()
    if path.suffix in {".npz", ".gz"} and choose.random() < 0.5:
        changed = flip(content, choose)
    elif choose.random() < 0.4 or not content or path.suffix in {".npz", ".gz"}:
        changed = change_bytes(content, choose)
    elif path.suffix == ".ckpt":
        changed = change_pickle(content, choose, path)
    elif path.suffix == ".yaml":
        changed = change_yaml(content, choose)
    else:
        changed = change_json(content, choose)
    path.write_bytes(changed)
    if path.name.startswith("step_") and choose.random() < 0.8:
        path.rename(path.with_name(state_name(int(path.name[5:14]), hashlib.sha256(changed).hexdigest())))


def files_of(place: Path) -> list[Path]:
    """The files that may be damaged: those of run directories, and their copies in artifacts/."""
    run_files = [
        path for path in sorted(place.glob("runs/*/*")) if path.is_file() and not path.name.startswith("table")
    ]
    for run in sorted(path.parent for path in place.glob("runs/*/*/config.yaml")):
        run_files += [path for path in sorted(run.iterdir()) if path.is_file() and "events" not in path.name]
        run_files += [*list_states(run / "checkpoints"), run / "checkpoints" / "best.ckpt"]
    files = [*run_files, *sorted(place.glob("artifacts/best.*")), place / "config.yaml"]
    return [path for path in files if path.exists() and path.suffix != ".lock"]


def resume(place: Path) -> None:
    """Complete each run, as `src.train` does with the one of its sweep."""
    for sweep in sweeps(place / "runs"):
        for run in sweep.runs():
            attempt(run, train, lambda: False, PlainReporter())


def commands_of(place: Path) -> dict[str, Callable[[], object]]:
    from hpc import aggregate
    from hpc.commands import manage, submit
    from hpc.monitor import logs, retry
    from src import compare_runs, evaluate, report

    config = str(place / "config.yaml")
    load = functools.partial(load_config, config)
    grid, train = (submit.command_of(WORKS[name]) for name in ("grid", "train"))
    run = next(iter(place.glob("runs/*/k=002*")))
    label = f"{run.parent.name}/{run.name}"
    return {
        "status": lambda: manage.status(config=config),
        "aggregate": lambda: aggregate.main(config=config),
        "logs": lambda: logs.show_logs(load().paths, label, follow=False),
        "cancel": lambda: manage.cancel("all", config=config),
        "retry": lambda: retry.retry(load().paths, label, "h100-mig", None),
        "grid --dry-run": lambda: grid(config=config, cluster="h100-mig", dry_run=True),
        "train --best": lambda: train(config=config, cluster="local", best=True, unfinished=True, dry_run=True),
        "compare": lambda: compare_runs.main(sweep="compare", config=config),
        "neighbours": lambda: compare_runs.main(sweep=run.parent.name, config=config),
        "report": lambda: report.main(config=config),
        "evaluate": lambda: evaluate.main(as_json=False, config=config),
        "resume": lambda: resume(place),
    }


def end_of(command: Callable[[], object]) -> str:
    """The traceback that a command ends with, or ""."""
    try:
        run_app(cast(typer.Typer, command))
    except SystemExit as end:
        return "" if end.code in (0, 2, EXIT_STOPPED) else f"exit code {end.code}"
    except Exception:
        return traceback.format_exc()
    return ""


def try_case(whole: Path, seed: int) -> str:
    """Damage a file and call a command. Returns "" if it ends without a traceback."""
    choose = random.Random(seed)
    place = whole / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole / "kept", place, symlinks=True)
    files = files_of(place)
    # More often what several cells are compared by, and what all commands read.
    often = [path for path in files if path.name in ("predictions.npz", "sweep.yaml")]
    path = choose.choice(often if choose.random() < 0.3 else files)
    if path.suffix == ".ckpt":
        names = ["evaluate"] if path.parent.name == "artifacts" else ["resume"]
    elif path.name == "config.yaml" and path.parent.name.startswith("k="):
        names = ["resume"]
    else:
        names = [
            "status",
            "aggregate",
            "logs",
            "cancel",
            "retry",
            "grid --dry-run",
            "train --best",
            "compare",
            "neighbours",
            "resume",
        ]
    name = choose.choice(names)
    places = _places(path)
    damage(path, choose)
    if path.exists() and _places(path) != places:
        return ""  # What is written must stay in the test's own folder.
    found = end_of(commands_of(place)[name])
    return f"case {seed}: {name} with {path.relative_to(place)} damaged\n{found}" if found else ""


def _places(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines() if path.name == "config.yaml" else []
    return [line for line in lines if b"_dir:" in line or b"root:" in line]


@pytest.fixture
def site(commands: Path) -> None:
    """A cluster whose queue is empty."""
    for name, script in {"sinfo": "echo gpu:1g.12gb:7", "sbatch": "echo Submitted batch job 71"}.items():
        fake(commands, name, script)
    fake(commands, "scontrol", "echo 'MaxArraySize            = 1001'")
    for name in ("squeue", "sacct", "scancel", "srun"):
        fake(commands, name, "")


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("default")
def test_no_bytes_lead_to_a_traceback(whole: Path, site: None, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = float(os.environ.get("RELAY_HUNT_S", "0"))
    first = int(os.environ.get("RELAY_HUNT_SEED", str(int(time.time()) if seconds else 0)))
    deadline, seed, found = time.monotonic() + seconds, first, []
    while seed - first < CASES if not seconds else time.monotonic() < deadline:
        problem = try_case(whole, seed)
        capsys.readouterr()
        if problem:
            found.append(problem)
        seed += 1
    assert not found, f"{len(found)} of {seed - first} cases\n\n" + "\n".join(found)
