"""Prepare a sweep for its launch: decode its images, make its directories, choose its code."""

from __future__ import annotations

from pathlib import Path

from src import hints
from src.runner import prepare_images
from src.runs.code_snapshot import code_change, code_digest, new_code_hint, sweep_code, use_new_code
from src.runs.reuse import reuse_finished
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request, open_sweep


def prepare_sweep(request: Request, *, fresh: bool, new_code: bool) -> tuple[SweepDir, bool]:
    """The sweep of a request, ready to be executed: the existing one, or a new one. True if it is new.

    Raises DataError if the images have changed since it was planned, RunError if its code is missing or was changed.
    """
    sweep, new = open_sweep(prepare_images(request, fresh=fresh), fresh=fresh)
    if not fresh:
        reuse_finished(sweep)
    if not new:
        choose_code(sweep, new_code=new_code)
    return sweep, new


def choose_code(sweep: SweepDir, *, new_code: bool, root: Path | None = None) -> None:
    """Continue a sweep with the code it was made with, or with the current code if `new_code`; print which.

    `root`: the code to compare with, if not that of this process. Raises RunError if its snapshot is missing or was
    changed.
    """
    change = code_change(sweep, root)
    if not (change or new_code):
        return
    # Results of two versions of the code should not be mixed in one table, so the code of a finished sweep stays too.
    if all(run.is_done() for run in sweep.runs()):
        if change:
            print(
                f"{sweep.path}: done before, with other code: {change}; "
                f"to run it again from the start: {hints.again('--fresh')}",
                flush=True,
            )
    elif new_code:
        print(f"continues with the current code, snapshot {use_new_code(sweep).name}", flush=True)
    else:
        sweep_code(sweep)
        print(f"continues with the code it was made with; {change}; {new_code_hint()}", flush=True)


def code_to_use(sweep: SweepDir, *, new_code: bool) -> Path:
    """The snapshot that a launch would use for the sweep; neither of them has to exist yet."""
    keeps = sweep.meta_file.is_file() and not new_code
    return (sweep.code / (sweep.meta()["snapshot"] if keeps else code_digest())).absolute()
