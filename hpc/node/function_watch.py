"""Watches the process that calls a user's function, which reports what it does: see relay/program/contract.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc.node.child import Child
from hpc.node.watch import Watch
from relay.log import log
from relay.program.contract import Order
from relay.program.states import newest_step
from relay.program.trace import until
from relay.progress import Reporter, StopCheck
from relay.runs.environment import cpu_model
from relay.runs.lifecycle import AttemptError, Outcome, note_first_step, note_steps, write_provenance
from relay.runs.program_log import ProgramLog, Reports
from relay.runs.rundir import RunDir

# How long a program that has reported its end may take to exit.
_EXIT_S = 60.0


class FunctionWatch(Watch):
    """What is known about a function while it runs. It is done only if its return is reported."""

    def __init__(
        self,
        run: RunDir,
        order: Order,
        should_stop: StopCheck,
        reporter: Reporter,
        seconds_left: Callable[[], float],
    ) -> None:
        super().__init__(run, should_stop, reporter, seconds_left)
        self._order = order
        self._reports = Reports(run.reports_file, order.attempt)
        self._log: ProgramLog | None = None
        self._ended_at: float | None = None
        self._first_step = self._total = 0
        self._environments: list[dict[str, str]] = []
        # The process that calls the function; what stands before its Python may be another one.
        self._pid: int | None = None
        # Of Python and the packages that are installed for it.
        self._versions: Mapping[str, str] = {}
        # The last report: `returned`, `stopped` or `failed`.
        self._end: Mapping[str, Any] | None = None

    def _look(self, child: Child) -> None:
        super()._look(child)
        for report in self._reports.new():
            self._note(report)
        if self._log:
            row = self._log.copy()
            if row:
                self._reporter.advance(row["step"], max(self._total, row["step"]), shown_values(row))

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
        if self._ended_at is not None and now - self._ended_at > _EXIT_S:
            log.warning(f"{self._run.label}: has reported its end and does not exit; it is killed")
            child.kill()
        else:
            super()._stop_if_asked(child, now)

    def _tell(self, child: Child) -> None:
        child.send(signal.SIGTERM, self._pid)

    def _has_answered(self) -> bool:
        return self._ended_at is not None

    def _resumes_from(self) -> str:
        return f"it resumes from step {newest_step(self._run.checkpoints)}"

    def _close(self, child: Child) -> None:
        if self._log:
            self._log.close()

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
            raise self._killed_error()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = f": {child.last_lines[-1]}" if child.last_lines else "; see its log"
        raise AttemptError("CRASHED", f"its process ended with {how} before {self._order.function} returned{said}")

    def _finish(self, end: Mapping[str, Any]) -> None:
        from relay.runs.program_log import result_of

        run, select = self._run, self._run.config()["metrics"]["select"]
        result = result_of(run, end, select["name"], select["direction"])
        run.write_result({**result, "environments": self._environments, "elsewhere": end["elsewhere"]})


def shown_values(row: Mapping[str, Any]) -> str:
    """A few values of a row, for a line of progress."""
    values = [f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "epoch", "time")]
    return "  ".join(values[:3])


def _stop_s(end: Mapping[str, Any]) -> float | None:
    """How long the program may need to answer a stop: its longest step and its longest save; None if it did not say."""
    return round(end["longest_step_s"] + end["save_s"], 3) if end else None
