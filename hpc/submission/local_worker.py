"""Start worker processes on this machine: submitit's local executor, and the environment of a worker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import submitit

from hpc.node.task import VISIBLE_GPUS, Task
from hpc.submission.plan import MAX_NUM_TIMEOUT
from hpc.submission.site import check_job_folder
from src.runs.rundir import RunDir


def local_executor(log_folder: Path, time_min: int, signal_lead_s: int) -> submitit.LocalExecutor:
    """submitit's executor for this machine. It signals a worker `signal_lead_s` seconds before `time_min` minutes."""
    check_job_folder(log_folder)
    log_folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.LocalExecutor(folder=log_folder, max_num_timeout=MAX_NUM_TIMEOUT)
    executor.update_parameters(timeout_min=time_min, signal_delay_s=signal_lead_s)
    return executor


def start_worker(
    executor: submitit.LocalExecutor, run: RunDir, code: Path, variables: Mapping[str, str]
) -> submitit.Job[object]:
    """Start a worker that executes the run with the code in `code`, under these environment `variables`."""
    # Ctrl-C and a closing terminal (SIGHUP) reach the whole process group. Workers ignore both: the pool tells them to
    # stop and gives them time to save.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        with _environment({**_code_environment(code), **variables, **_gpus()}):
            return executor.submit(Task([str(run.path)]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes started inside, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _code_environment(code: Path) -> dict[str, str]:
    # PYTHONSAFEPATH: otherwise `python -m` puts the current folder, the checkout, before the snapshot.
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{code}{os.pathsep}{before}" if before else str(code), "PYTHONSAFEPATH": "1"}


def _gpus() -> dict[str, str]:
    # submitit's local executor sets CUDA_VISIBLE_DEVICES to nothing; the task restores it from this variable.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {} if visible is None else {VISIBLE_GPUS: visible}
