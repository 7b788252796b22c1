"""Run directories that were deleted or cut off are written again from the manifest, before they cost a slice."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.node.execution import execute_run
from hpc.recovery.diagnosis import StopRequest
from hpc.recovery.reconcile import classify_runs
from hpc.submission.here import execute_here
from hpc.submission.prepare import prepare_inputs
from jobs.grid import GRID
from relay.errors import RunError
from relay.progress import PlainReporter, Reporter, StopCheck
from relay.runs import ownership
from relay.runs.lifecycle import Outcome, attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import Request, open_sweep
from src.config.schema import Config
from src.requests import compare_request, evaluation_request, grid_request, lr_sweep_request, train_request

VARIANTS = {"variants": {"slow": {"train.optimizer.lr": 0.0005}, "wide": {"model.num_modules": 2}}}
REQUESTS: dict[str, Callable[[Callable[..., Config]], Request]] = {
    "grid": lambda small: grid_request(small()),
    "train": lambda small: train_request(small(train__epochs=2, train__seed=7)),
    "overfit": lambda small: train_request(small(train__overfit_small=True)),
    "lr_sweep": lambda small: lr_sweep_request(small(lr_finder__seeds=[1, 2])),
    "compare": lambda small: compare_request(small(compare=VARIANTS)),
    "evaluate": lambda small: evaluation_request(small(evaluation__checkpoint=__file__)),
}


def empty(run: RunDir) -> None:
    run.config_file.write_bytes(b"")


def cut(run: RunDir) -> None:
    run.config_file.write_bytes(run.config_file.read_bytes()[:500])


def cut_between_lines(run: RunDir) -> None:
    """What is left is a valid configuration, of another experiment."""
    lines = run.config_file.read_bytes().splitlines(keepends=True)
    run.config_file.write_bytes(b"".join(lines[: len(lines) // 2]))


LOSSES: dict[str, Callable[[RunDir], object]] = {
    "deleted": lambda run: shutil.rmtree(run.path),
    "without config.yaml": lambda run: run.config_file.unlink(),
    "empty": empty,
    "cut off": cut,
    "cut between two lines": cut_between_lines,
}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_configuration_is_written_again_as_it_was(small: Callable[..., Config], kind: str, loss: str) -> None:
    sweep = open_sweep(REQUESTS[kind](small))[0]
    run = sweep.runs()[-1]
    planned = run.config_file.read_bytes()
    LOSSES[loss](run)
    by_state = classify_runs(sweep, {})
    assert run.config_file.read_bytes() == planned
    assert by_state.to_submit == sweep.runs()


@pytest.mark.parametrize(
    "content", [None, b"", b"no gzip", gzip.compress(b"no JSON", mtime=0), gzip.compress(b"{}", mtime=0)[:15]]
)
def test_what_the_sweep_does_not_have_any_more_is_said_before_a_slice_is_used(
    small: Callable[..., Config], content: bytes | None
) -> None:
    sweep = open_sweep(grid_request(small()))[0]
    if content is None:
        sweep.configs_file.unlink()
    else:
        sweep.configs_file.write_bytes(content)
    run = sweep.runs()[1]
    shutil.rmtree(run.path)
    (blocked,) = (by_state := classify_runs(sweep, {})).blocked.items()
    assert blocked[0] == run
    assert "is missing or damaged, and so is its copy in configs.jsonl.gz; restore it, or start over: " in str(
        blocked[1]
    )
    assert len(by_state.to_submit) == 3
    assert not run.path.exists()


@pytest.mark.parametrize("loss", ["deleted", "cut between two lines"])
@pytest.mark.parametrize("where", ["foreground", "task"])
def test_a_run_whose_directory_is_lost_is_executed(small: Callable[..., Config], loss: str, where: str) -> None:
    """Also by a task that waited in the queue meanwhile."""
    sweep = open_sweep(prepare_inputs(grid_request(small(hparams={"lr": [0.01]}))))[0]
    (run,) = sweep.runs()
    LOSSES[loss](run)
    if where == "task":
        assert execute_run(run, StopRequest(), PlainReporter()) == "DONE"
    else:
        execute_here(sweep, GRID)
    assert run.is_done()


def test_a_deleted_run_can_be_cancelled(small: Callable[..., Config]) -> None:
    run, *_ = (sweep := open_sweep(grid_request(small()))[0]).runs()
    shutil.rmtree(run.path)
    run.cancel()
    by_state = classify_runs(sweep, {})
    assert by_state.cancelled == [run]
    assert run.config_file.is_file()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_directory_is_deleted_while_it_is_executed_stops_and_writes_nothing(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.02)
    run, *_ = (sweep := open_sweep(grid_request(small()))[0]).runs()

    def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        shutil.rmtree(run.path)
        if replaced:
            classify_runs(sweep, {})
        waited = threading.Event()
        while not should_stop():
            waited.wait(0.01)
        run.write_result({"steps": 3})
        return Outcome("done", 0, 3, 3)

    with pytest.raises(RunError, match="was deleted, moved or replaced while this process executed the run"):
        attempt(run, execute, lambda: False, PlainReporter())
    left: list[Path] = list(run.path.iterdir()) if replaced else []
    assert [path.name for path in left] == ([run.config_file.name] if replaced else [])
    assert run.path.exists() == replaced
