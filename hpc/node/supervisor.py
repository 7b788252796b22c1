"""Executes a user's program: in a process of its own, which this one starts, watches and ends.

A signal of SLURM reaches this process, and sets a flag (hpc/recovery/diagnosis.py). This process then sends SIGTERM to
the program's, which sees it between two steps (relay/program/run.py), saves and ends. One that does not answer in time
is killed: the run then goes on from its last saved state.

Two processes never execute one run: the program's holds the run lock as well, through the descriptor that it inherits.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc.node.child import Child
from relay.errors import RelayError
from relay.log import log
from relay.program.contract import Order
from relay.program.state_names import newest_step
from relay.program.trace import until
from relay.progress import Reporter, StopCheck
from relay.projects.cells import run_key
from relay.projects.parameters import link_relay, program_environment
from relay.projects.request import inputs_digest
from relay.runs.environment import cpu_model
from relay.runs.lifecycle import AttemptError, Outcome, note_first_step, note_steps, write_provenance
from relay.runs.memory import memory_kills, note_children
from relay.runs.planned import check_as_planned
from relay.runs.program_log import ProgramLog, Reports
from relay.runs.project_snapshot import project_problem
from relay.runs.rundir import RunDir
from relay.runs.work_folder import make_work_folder

_POLL_S = 0.05
_LOOK_EVERY_S = 1.0
# A process that ends by a signal may have had it from SLURM, whose signal for this one is on its way.
_OWN_SIGNAL_S = 2.0
# How long a program that has reported its end may take to exit.
_EXIT_S = 60.0


def supervise(run: RunDir, should_stop: StopCheck, reporter: Reporter, seconds_left: Callable[[], float]) -> Outcome:
    """Execute the program of a run until it is done, or its state is saved after `should_stop` returned true.

    `seconds_left`: after a stop, how long the program may take to answer. Raises AttemptError with the cause if the
    program ended otherwise, RunError if its project or config.yaml was changed, DataError if its inputs were.
    """
    order, command = _prepared(run)
    # Absolute: the program's current folder is another one.
    order_file = run.path.absolute() / "order.json"
    order.write(order_file)
    watched = _Watch(run, order, should_stop, reporter, seconds_left)
    owner = run.owner
    locks = [owner.lock] if owner and owner.lock is not None else []
    with Child(
        [*command, "-m", "relay.program.call", str(order_file)], Path(order.work), _environment(run), locks
    ) as child:
        return watched.until_end(child)


def _prepared(run: RunDir) -> tuple[Order, list[str]]:
    """The order for the program of this attempt, and the command that is its Python."""
    config, sweep = run.config(), run.sweep()
    program, select, every = config["program"], config["metrics"]["select"], config["checkpoint"]
    key = run_key(program["function"], program["name"], config["params"])
    inputs = config["inputs"]
    digest = "" if inputs is None else inputs_digest({name: Path(path) for name, path in inputs.items()})
    check_as_planned(run, key, digest, "its inputs")
    project = sweep.project / sweep.meta()["project"]
    if problem := project_problem(project):
        raise RelayError(f"{project}: is no longer the project of {sweep.name}: {problem}; restore it")
    make_work_folder(run.work.absolute(), project.absolute(), config["project"]["writes"])
    run.checkpoints.mkdir(exist_ok=True)
    order = Order(
        function=program["function"],
        params=config["params"],
        label=run.label,
        key=key,
        attempt=len(run.attempts()),
        token=run.owner.token if run.owner else "",
        root=program["project"],
        folder=str(project.absolute()),
        work=str(run.work.absolute()),
        reports=str(run.reports_file.absolute()),
        metrics=str(run.metrics_file.absolute()),
        checkpoints=str(run.checkpoints.absolute()),
        best=str(run.best_file.absolute()),
        owner=str(run.owner_file.absolute()),
        select=select["name"],
        direction=select["direction"],
        every_steps=every["every_steps"],
        every_minutes=every["every_minutes"],
        keep=every["keep"],
        deterministic=program["deterministic"],
    )
    return order, program["python"]


def _environment(run: RunDir) -> dict[str, str]:
    """That of the program, with what makes it deterministic."""
    return {
        **program_environment(link_relay(run.path.absolute() / ".relay")),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    }


class _Watch:
    """What is known about the program while it runs."""

    def __init__(
        self,
        run: RunDir,
        order: Order,
        should_stop: StopCheck,
        reporter: Reporter,
        seconds_left: Callable[[], float],
    ) -> None:
        self._run, self._order, self._reporter = run, order, reporter
        self._should_stop, self._seconds_left = should_stop, seconds_left
        self._reports = Reports(run.reports_file, order.attempt)
        self._log: ProgramLog | None = None
        self._asked_at: float | None = None
        self._ended_at: float | None = None
        self._killed = False
        self._memory_kills = memory_kills()
        self._first_step = self._total = 0
        self._environments: list[dict[str, str]] = []
        self._looked_at = 0.0
        # The process that calls the function; what stands before its Python may be another one.
        self._pid: int | None = None
        # Of Python and the packages that are installed for it.
        self._versions: Mapping[str, str] = {}
        # The last report: `returned`, `stopped` or `failed`.
        self._end: Mapping[str, Any] | None = None

    def until_end(self, child: Child) -> Outcome:
        """Watch the program to its end. Nothing of it runs any more when this returns or raises."""
        while child.is_alive():
            child.pass_on()
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = now
                self._look(child)
            self._stop_if_asked(child, now)
            time.sleep(_POLL_S)
        child.end()
        self._look(child)
        if self._log:
            self._log.close()
        # Raises if another process has taken the run over: then nothing more is written.
        self._run.check_owner()
        return self._outcome(child)

    def _look(self, child: Child) -> None:
        """Read on what the program has reported and logged."""
        note_children(child.memory_mb())
        for report in self._reports.new():
            self._note(report)
        if self._log:
            row = self._log.copy()
            if row:
                shown = [f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "epoch", "time")]
                self._reporter.advance(row["step"], max(self._total, row["step"]), "  ".join(shown[:3]))

    def _note(self, report: Mapping[str, Any]) -> None:
        event = report["event"]
        if event == "started":
            self._pid, self._versions = report["pid"], report["versions"]
        elif report["pid"] != self._pid:
            # Of a fork of the program, which is not the program.
            return
        elif event == "began":
            self._first_step, self._total = report["step"], report["total"]
            self._environments = [{**each, "cpu": cpu_model()} for each in report["environments"]]
            note_steps(self._run, self._first_step, self._total, self._environments)
            project = Path(self._order.folder).name
            device, environment = report["environments"][-1]["device"], self._environments[-1]
            write_provenance(self._run, device, environment, project=project, versions=self._versions)
            self._log = self._log or ProgramLog(self._run)
            if self._first_step:
                log.info(f"{self._run.label}: resumes from step {self._first_step} of {self._total}")
        elif event == "first_step":
            note_first_step(self._run)
        else:
            self._end, self._ended_at = report, time.monotonic()

    def _stop_if_asked(self, child: Child, now: float) -> None:
        owner = self._run.owner
        if owner and owner.lost:
            child.kill()
        elif self._ended_at is not None and now - self._ended_at > _EXIT_S:
            log.warning(f"{self._run.label}: has reported its end and does not exit; it is killed")
            child.kill()
        elif self._asked_at is None:
            if self._should_stop():
                self._asked_at = now
                self._look(child)
                child.send(signal.SIGTERM, self._pid)
        elif not self._killed and self._ended_at is None and self._seconds_left() <= 0:
            self._killed = True
            log.warning(
                f"{self._run.label}: stopped {now - self._asked_at:.0f} s after it was asked and did not answer; "
                f"killed; it resumes from step {newest_step(self._run.checkpoints)}"
            )
            child.kill()

    def _outcome(self, child: Child) -> Outcome:
        code = child.code
        end = self._end or {}
        steps = {"first_step": self._first_step, "total_steps": self._total}
        if end.get("event") == "returned":
            self._finish(end)
            return Outcome("done", last_step=end["step"], save_s=_stop_s(end), **steps)
        if end.get("event") == "failed":
            raise AttemptError("OUT_OF_MEMORY" if end["kind"] == "memory" else "CRASHED", end["reason"])
        paused = end.get("event") == "stopped" and end["step"] >= until()
        if paused or self._was_asked(code):
            return Outcome("stopped", last_step=newest_step(self._run.checkpoints), save_s=_stop_s(end), **steps)
        if code == -signal.SIGKILL:
            cause = "OUT_OF_MEMORY" if memory_kills() > self._memory_kills else "KILLED"
            raise AttemptError(cause, "its process was killed")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = f": {child.last_words}" if child.last_words else "; see its log"
        raise AttemptError("CRASHED", f"its process ended with {how} before {self._order.function} returned{said}")

    def _was_asked(self, code: int) -> bool:
        if self._asked_at is None and (code < 0 or code > 128):
            deadline = time.monotonic() + _OWN_SIGNAL_S
            while not self._should_stop() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            return self._should_stop()
        return self._asked_at is not None

    def _finish(self, end: Mapping[str, Any]) -> None:
        from relay.runs.program_log import result_of

        run, select = self._run, self._run.config()["metrics"]["select"]
        result = result_of(run, end, select["name"], select["direction"])
        run.write_result({**result, "environments": self._environments, "elsewhere": end["elsewhere"]})


def _stop_s(end: Mapping[str, Any]) -> float | None:
    """How long the program may need to answer a stop: its longest step and its longest save; None if it did not say."""
    return round(end["longest_step_s"] + end["save_s"], 3) if end else None
