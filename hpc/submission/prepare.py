"""A sweep made ready for its launch: its images decoded, its directories made, its code chosen."""

from __future__ import annotations

from pathlib import Path

from src import hints
from src.runner import prepare_images
from src.runs.code_snapshot import check_startable, code_change, code_digest, new_code_hint, sweep_code, use_new_code
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request, open_sweep


def prepare_sweep(request: Request, *, fresh: bool, new_code: bool) -> tuple[SweepDir, bool]:
    """The sweep of a request, ready to be submitted: the one that exists, or a new one. True if it is new.

    Raises DataError if the images are not those that it was planned on, RunError if its code is gone.
    """
    sweep, new = open_sweep(prepare_images(request), fresh=fresh)
    if not new:
        choose_code(sweep, new_code=new_code)
    return sweep, new


def choose_code(sweep: SweepDir, *, new_code: bool, root: Path | None = None) -> None:
    """A sweep continues with the code it was made with, unless its user asks for `new_code`; one line says which.

    `root`: the code that it is compared with, if not that of this process. Raises RunError if its own is gone.
    """
    change = code_change(sweep, root)
    if not (change or new_code):
        return
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
    """The snapshot that a launch would use for the sweep; neither of them has to exist yet.

    Raises RunError if the launch would refuse it as too old.
    """
    digest = sweep.meta().get("snapshot") if sweep.meta_file.is_file() and not new_code else None
    path = (sweep.code / str(digest or code_digest())).absolute()
    if digest:
        check_startable(path, sweep.name, sweep.meta())
    return path
