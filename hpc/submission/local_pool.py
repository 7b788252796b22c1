"""The local profile: submitit's local executor under a cap, watched from here until every run has come to an end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import submitit

from hpc.node.task import VISIBLE_GPUS, Task
from hpc.recovery.reconcile import blocked_by_cause, classify_runs
from hpc.submission.plan import MAX_NUM_TIMEOUT, check_job_folder
from hpc.submission.profile import Profile
from hpc.submission.submit import show_in_logs
from src import hints
from src.cli import EXIT_STOPPED
from src.config.schema import Config
from src.errors import RunError
from src.log import log
from src.progress import Reporter, make_reporter
from src.results.table import collect, state_of_run
from src.runner import stop_on_signal
from src.runs.attempts import unfinished_attempt
from src.runs.causes import REQUEUED_AFTER, Attempts, why_blocked
from src.runs.code_snapshot import new_code_hint, snapshot_problem, sweep_code
from src.runs.rundir import RunDir, SweepDir

_POLL_S = 0.2
_GIVE_UP_S = 60.0


class LocalPool:
    """Keeps up to `max_parallel` runs going; every run that stopped with a budget left is started again."""

    def __init__(self, profile: Profile, log_folder: Path, reporter: Reporter, code: Path) -> None:
        self._code = code
        self._executor = local_executor(log_folder, profile.time_min, profile.signal_lead_s)
        self._profile, self._reporter = profile, reporter
        self._active: dict[RunDir, submitit.Job[object]] = {}
        self._attempts_seen: dict[RunDir, int] = {}
        self._attempts_before: dict[RunDir, int] = {}
        self._busy: set[RunDir] = set()

    def execute(self, runs: Sequence[RunDir]) -> bool:
        """Bring the runs to their end. False if Ctrl-C or a closed terminal stopped it, with their states saved."""
        waiting = [run for run in runs if not run.is_done()]
        total = len(runs)
        with stop_on_signal() as should_stop:
            while (waiting or self._active) and not should_stop():
                waiting = self._start_some(waiting) + self._collect()
                self._show(total, len(waiting))
                time.sleep(_POLL_S)
            if should_stop():
                self._stop_all()
        return not should_stop()

    def _start_some(self, waiting: Sequence[RunDir]) -> list[RunDir]:
        """Fill the free places. Returns the runs that still wait, those first that another process executes."""
        left = []
        for run in waiting:
            if len(self._active) >= self._profile.max_parallel:
                left.append(run)
            elif not run.is_done() and run.cancelled():
                self._reporter.say(f"{run.name}: cancelled")
            elif not run.is_done() and not run.is_locked_now():
                self._start(run)
            elif not run.is_done():
                left.append(run)
                if run not in self._busy:
                    self._reporter.say(f"{run.name}: another process executes it; waiting for it")
                    self._busy.add(run)
        return left

    def _start(self, run: RunDir) -> None:
        problem = snapshot_problem(self._code)
        if problem:
            self._reporter.say(
                f"{run.name}: not started, {self._code} is not what it was: {problem}; {new_code_hint()}"
            )
            return
        # A Ctrl-C in the terminal, and its end, reach the whole process group; the workers are told by us, and given
        # time to save.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
        try:
            self._attempts_before[run] = len(run.attempts())
            with environment({**code_environment(self._code), **self._cpus(), **_gpus()}):
                self._active[run] = self._executor.submit(Task([str(run.path)]))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self._reporter.say(f"started {run.name} (job {self._active[run].job_id})")

    def _cpus(self) -> dict[str, str]:
        """The runs share the cores; threads of one that wait for those of another slow both down."""
        if self._profile.cpus is None and "OMP_NUM_THREADS" in os.environ:
            return {}
        share = max(1, len(os.sched_getaffinity(0)) // self._profile.max_parallel)
        return {"RELAY_CPUS": str(self._profile.cpus or share)}

    def _collect(self) -> list[RunDir]:
        """Runs whose job is over and that go on; those done or failed are said."""
        again = []
        for run, job in list(self._active.items()):
            self._say_attempts(run)
            if not job.done():
                continue
            del self._active[run]
            attempts = run.attempts()
            state = state_of_run(run, run.result(), attempts)
            # A worker that could not even begin an attempt will not do so the next time.
            if not run.is_done() and len(attempts) > self._attempts_before[run] and _goes_on(run, attempts):
                again.append(run)
                continue
            detail = "" if run.result() else f"; see {job.paths.stderr}"
            self._reporter.say(f"{run.name}: {state}{detail}")
        return again

    def _say_attempts(self, run: RunDir) -> None:
        ended = [attempt for attempt in run.attempts() if "end" in attempt]
        for attempt in ended[self._attempts_seen.get(run, 0) :]:
            if attempt["cause"] != "DONE":
                where = f" at step {attempt['last_step']}" if "last_step" in attempt else ""
                where += f" of {attempt['total_steps']}" if "total_steps" in attempt else ""
                self._reporter.say(f"{run.name}: attempt {attempt['attempt']} ended by {attempt['cause']}{where}")
            elif attempt.get("first_step"):
                self._reporter.say(
                    f"{run.name}: attempt {attempt['attempt']} resumed from step {attempt['first_step']} and finished"
                )
        self._attempts_seen[run] = len(ended)

    def _show(self, total: int, waiting: int) -> None:
        if self._active:
            done = total - waiting - len(self._active)
            self._reporter.advance(done, total, "; ".join(standing(run) for run in self._active), unit="run")

    def _stop_all(self) -> None:
        """Ask every worker to save, and wait for them."""
        for job in self._active.values():
            # SIGTERM to the controller is passed on to its worker, which saves at its next step.
            _send(int(job.job_id), signal.SIGTERM)
        _wait_until(lambda: all(job.done() for job in self._active.values()), _GIVE_UP_S)
        for run in self._active:
            attempts = run.attempts()
            last = attempts[-1].get("last_step") if attempts else None
            log.info(f"{run.name}: {'saved at step ' + str(last) if last is not None else 'stopped'}")


def _gpus() -> dict[str, str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {} if visible is None else {VISIBLE_GPUS: visible}


def _goes_on(run: RunDir, attempts: Attempts) -> bool:
    if run.cancelled():
        return False
    killed = unfinished_attempt(attempts) is not None
    return (killed or attempts[-1]["cause"] in REQUEUED_AFTER) and why_blocked(attempts) is None


def standing(run: RunDir) -> str:
    """One run in a few words, from its newest metrics row."""
    row = run.last_metrics()
    if not row:
        return f"{run.name}: starting"
    losses = [f"loss {value:.3f}" for name in ("train/loss", "lr_finder/loss") if (value := row.get(name)) is not None]
    return f"{run.name}: " + "  ".join([f"step {row['step']}", *losses])


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def local_executor(log_folder: Path, time_min: int, signal_lead_s: int) -> submitit.LocalExecutor:
    """submitit's executor for this machine, set up so that its workers find the code."""
    check_job_folder(log_folder)
    log_folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.LocalExecutor(folder=log_folder, max_num_timeout=MAX_NUM_TIMEOUT)
    executor.update_parameters(timeout_min=time_min, signal_delay_s=signal_lead_s)
    return executor


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started inside, and set them back."""
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


def code_environment(code: Path) -> dict[str, str]:
    """Variables under which a worker of this machine takes the code in `code`, and not that of the current folder."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{code}{os.pathsep}{before}" if before else str(code), "PYTHONSAFEPATH": "1"}


def run_here(sweep: SweepDir, profile: Profile, config: Config, only: Collection[str] | None) -> None:
    """Execute what is missing of the sweep on this machine, and collect its results. Raises RunError if runs fail."""
    by_state = classify_runs(sweep, {})
    runs = [
        run
        for run in (*by_state.to_submit, *by_state.cancelled, *by_state.running_elsewhere)
        if only is None or run.name in only
    ]
    for run in runs:
        run.lift_cancel()
    if runs:
        show_in_logs(config, sweep.jobs)
        with make_reporter() as reporter:
            complete = LocalPool(profile, sweep.jobs.absolute(), reporter, sweep_code(sweep)).execute(runs)
        if not complete:
            log.info(f"stopped; to continue: {hints.again()}")
            sys.exit(EXIT_STOPPED)
    collect(sweep, Path(config.paths.artifacts_dir))
    left = classify_runs(sweep, {})
    undone = [*left.blocked, *left.cancelled, *left.to_submit]
    if undone:
        first = undone[0]
        more = f"to see more: {hints.command('hpc.launch', 'logs', first.label)}"
        raise RunError(
            f"{len(undone)} of {len(sweep.runs())} runs are not done; {more}\n{blocked_by_cause(left.blocked)}".rstrip()
        )
