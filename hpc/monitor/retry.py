"""Run failed runs again: reset their budgets and submit them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from hpc.pipeline.names import resolve_stage_name
from hpc.recovery.reconcile import RunsByState, classify_runs, last_cause, reset_budgets
from hpc.submission.execute import execute
from hpc.submission.prepare import choose_code
from hpc.submission.profile import profile_of, remember_profile
from hpc.submission.site import ask_site
from hpc.submission.submissions import in_queue
from src import hints
from src.config.loading import make_config
from src.config.messages import nearest
from src.config.schema import Config
from src.errors import RunError
from src.runs.causes import CAUSES
from src.runs.names import find_named, print_names
from src.runs.rundir import RunDir
from src.text import counted


def retry(config: Config, name: str | None, cluster: str | None, cause: str | None, *, new_code: bool = False) -> None:
    """Give failed runs their budgets back, and submit them again. Raises RunError if there are none."""
    runs_dir = Path(config.paths.runs_dir)
    sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name))
    hints.use(sweep.meta())
    profile_name, profile = profile_of(sweep, cluster)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    by_state = classify_runs(sweep, in_queue(sweep) if site else {})
    if run in by_state.blocked and by_state.blocked[run].damaged:
        raise RunError(by_state.blocked[run].detail)
    failed = [r for r in by_state.failed() if run in (None, r)]
    chosen = [r for r in failed if cause is None or cause.upper() in (last_cause(r), _word(by_state, r))]
    if not chosen:
        raise RunError(f"{run.label if run else sweep.name}: no failed run{_why_none(by_state, failed, cause)}")
    remember_profile(sweep, profile_name)
    hints.use(sweep.meta())
    reset_budgets(chosen, round(time.time(), 3))
    theirs = "gets its budgets" if len(chosen) == 1 else "get their budgets"
    print(f"{sweep.path}: {counted(len(chosen), 'failed run')} {theirs} back, on profile {profile_name}:", flush=True)
    print_names(chosen)
    choose_code(sweep, new_code=new_code)
    # Their own configuration says where logs and tables go.
    own = make_config(sweep.meta()["config"], str(sweep.meta_file))
    execute(sweep, profile, site, own, [r.name for r in chosen])


def _why_none(by_state: RunsByState, failed: Sequence[RunDir], cause: str | None) -> str:
    """What there is in place of failed runs."""
    if cause:
        causes = ", ".join(sorted({str(last_cause(run)) for run in failed})) or "none"
        return f" with --cause {cause}{nearest(cause.upper(), CAUSES)}; causes here: {causes}"
    others = {
        "done": by_state.done,
        "in the queue": by_state.queued,
        "executed by processes outside of SLURM": by_state.running_elsewhere,
    }
    words = [f"{len(runs)} {word}" for word, runs in others.items() if runs]
    if by_state.to_submit or by_state.cancelled:
        words.append(f"{len(by_state.to_submit) + len(by_state.cancelled)} to be submitted with: {hints.again()}")
    return f"; {', '.join(words)}"


def _word(by_state: RunsByState, run: RunDir) -> str | None:
    return by_state.blocked[run].cause if run in by_state.blocked else None
