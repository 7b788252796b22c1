"""A campaign: grids on a real SLURM, faults from a seed, and in the end every cell done once and right."""

from __future__ import annotations

import heapq
import itertools
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from src.runs.rundir import RunDir
from tests.conftest import ROOT
from tests.slurm.chaos import check
from tests.slurm.chaos.faults import ATTENDED, KINDS, Injection, heal_limits
from tests.slurm.chaos.site import Row, Site, kill
from tests.slurm.conftest import Cluster

SAY = Callable[[str], None]
PRESS_EVERY_S = 6.0
ATTEND_AFTER_S = 20.0
HASTEN_AFTER_S = 8.0
PATIENCE_S = 8.0
FINISH_S = 900.0
DECK = tuple(name for name in KINDS if name != ATTENDED)


@dataclass(frozen=True)
class Plan:
    """How a campaign is meant to go. `pace_s` is the mean time between two faults; `kinds` are those of its deck."""

    seed: int
    minutes: float
    cells: int = 4
    epochs: int = 120
    pace_s: float = 10.0
    kinds: tuple[str, ...] = DECK


@dataclass
class Press:
    """One `launch` on its way: when it began, its log, and when it is to be killed."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float
    killed_at: float | None = None


@dataclass
class Campaign:
    """See `run`. `say` gets a line for every fault and whatever else happens."""

    plan: Plan
    cluster: Cluster
    folder: Path
    say: SAY = print
    injections: list[Injection] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rounds: int = 0
    table: str = ""

    def __post_init__(self) -> None:
        self.site = Site(self.cluster, self.folder)
        self.rng = random.Random(self.plan.seed)
        self.started = time.monotonic()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._presses: list[Press] = []
        self._pressed = self._busy_until = self._next_fault = 0.0
        self._refused = False
        self._hanging: dict[str, float] = {}
        self._woken: set[str] = set()
        self._waiting: dict[str, float] = {}
        self._deck: list[str] = []

    def note(self, text: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')} {time.monotonic() - self.started:6.1f} s  {text}")

    def run(self) -> list[str]:
        """Bring the campaign to its end. Returns what did not hold; nothing if all of it did."""
        self.site.prepare(self.plan.cells, self.plan.epochs)
        if not self.site.has_disk:
            self.note("no file system can be mounted here: 'full disk' is left out")
        try:
            with self._reference() as reference:
                self._press("--fresh")
                self._go_on_until(time.monotonic() + 60 * self.plan.minutes, with_faults=True)
                self.note("no more faults")
                self._go_on_until(time.monotonic() + FINISH_S, with_faults=False)
                output, _ = reference.communicate(timeout=1800)
                assert reference.returncode == 0, output
            self.problems += [problem for injection in self.injections for problem in injection.problems]
            self.problems += check.problems_of(self.site, self.injections)
            self.table = self._count()
        finally:
            self._tidy_up()
        return self.problems

    @contextmanager
    def _reference(self) -> Iterator[subprocess.Popen[str]]:
        """The same grid in the foreground, never disturbed, in another runs directory."""
        env = {**self.cluster.env, "SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        config = ["--config", str(self.site.experiment)]
        quiet = {"cwd": ROOT, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, "-m", "src.grid_search", *config]
        # Images of its own, since a fault changes the others'.
        command += ["--set", f"paths.runs_dir={self.folder / 'reference'}"]
        command += ["--set", f"dataset.root={self.folder / 'reference-data'}"]
        with subprocess.Popen(command, **quiet) as process:
            yield process
            process.kill()

    def _go_on_until(self, end: float, *, with_faults: bool) -> None:
        while time.monotonic() < end:
            self._mend()
            self._look_at_presses()
            rows = self.site.queue()
            if rows is not None:
                heal_limits(self.site, rows)
                self._attend(rows)
                self._release(rows)
                self._hasten(rows)
                if with_faults and time.monotonic() >= self._next_fault:
                    self._inject(rows)
            if self._is_done() and not self._presses:
                if not with_faults and not self._agenda:
                    return
                if with_faults:
                    self._press("--fresh")
            elif rows is not None:
                self._press_if_due(rows)
            time.sleep(0.5)
        if not with_faults:
            left = [run.label for run in self.site.runs() if run.result() is None]
            self.problems.append(f"not done {FINISH_S:.0f} s after the last fault: {', '.join(left) or 'mending'}")

    def _is_done(self) -> bool:
        runs = self.site.runs()
        return len(self.site.sweeps()) == self.rounds and all(run.result() is not None for run in runs)

    def _inject(self, rows: list[Row]) -> None:
        """The next kind of the deck that something can be done to; a deck holds each kind once."""
        if not self._deck:
            self._deck = [name for name in self.plan.kinds if self.site.has_disk or not KINDS[name].needs_disk]
            self.rng.shuffle(self._deck)
        # Only after a while another one than the first, so that a seed has the same order whenever that is possible.
        patient = time.monotonic() < self._next_fault + PATIENCE_S
        for name in self._deck[:1] if patient else list(self._deck):
            if KINDS[name].alone and self._presses:
                continue
            # Of its own, so that it does not depend on how often others were tried.
            rng = random.Random(f"{self.plan.seed} {len(self.injections)} {name}")
            began = time.time()
            done = KINDS[name].inject(self.site, rng, rows)
            if done:
                self._deck.remove(name)
                done.kind, done.began, done.took_s = name, began, time.time() - began
                self.injections.append(done)
                self.note(f"{name}: {done.what}")
                for delay_s, fix in done.mending:
                    self._later(delay_s, fix)
                for delay_s, killed_after_s in done.launches:
                    self._later(delay_s, lambda after_s=killed_after_s: self._press(killed_after_s=after_s))
                    self._busy_until = max(self._busy_until, time.monotonic() + delay_s + 1)
                self._next_fault = time.monotonic() + self.rng.uniform(0.5, 1.5) * self.plan.pace_s
                if KINDS[name].alone:
                    self._next_fault = max(self._next_fault, self._busy_until)
                return

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (time.monotonic() + delay_s, next(self._numbers), what))

    def _mend(self) -> None:
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            _, _, what = heapq.heappop(self._agenda)
            if what() is False:
                self._later(2, what)

    def _press(self, *words: str, killed_after_s: float | None = None) -> None:
        """As a user who asks for the grid, or once more for what is missing of it."""
        if "--fresh" in words:
            self.rounds += 1
            self.note(f"round {self.rounds}")
        command = words if words and words[0] == "retry" else ("grid", *words)
        log = self.folder / f"launch-{next(self._numbers):04d}.log"
        process = self.site.launch(log, *command)
        killed_at = None if killed_after_s is None else time.monotonic() + killed_after_s
        self._presses.append(Press(process, log, time.time(), killed_at))
        self._pressed = time.monotonic()

    def _press_if_due(self, rows: list[Row]) -> None:
        """At once where something seems to be missing in the queue, and now and then whatever it looks like."""
        missing = sum(run.result() is None for run in self.site.runs()) - len(rows)
        wait_s = PRESS_EVERY_S if missing > 0 else 4 * PRESS_EVERY_S
        now = time.monotonic()
        if not self._presses and now >= self._busy_until and now - self._pressed >= wait_s:
            words = ("retry", "--failed") if self._refused else ()
            self._refused = False
            self._press(*words)

    def _look_at_presses(self) -> None:
        for press in list(self._presses):
            if press.killed_at is not None and time.monotonic() >= press.killed_at:
                kill([press.process.pid])
            if press.process.poll() is None:
                continue
            self._presses.remove(press)
            text = press.log.read_text(errors="replace")
            self._refused = self._refused or "-m hpc.launch retry" in text
            if problem := self._problem_of(press, text):
                self.problems.append(f"{press.log.name}: {problem}")
                self.note(f"PROBLEM {problem}")
            if "--fresh" in press.process.args and len(self.site.sweeps()) < self.rounds:
                self.rounds -= 1  # refused before anything was made; asked for again

    def _problem_of(self, press: Press, text: str) -> str:
        code = press.process.returncode
        if "Traceback" in text:
            return f"a traceback\n{text}"
        outages = [i for i in self.injections if i.kind in check.REFUSALS and i.began <= time.time()]
        excused = any(press.began <= i.over for i in outages) or press.killed_at is not None
        return f"exit code {code}\n{text}" if code != 0 and not excused else ""

    def _attend(self, rows: list[Row]) -> None:
        """What an attentive administrator does with tasks that SLURM believes in and that compute nothing any more.

        First the node is made to report again; where that does not help, the task is cancelled.
        """
        alive = {worker.row.job_id for worker in self.site.workers(rows)}
        begun = {str(a["job"]) for run in self.site.runs() for a in run.attempts()}
        hanging = {row.job_id: row for row in rows if row.state == "RUNNING" and row.job_id in begun - alive}
        now = time.monotonic()
        self._hanging = {job: self._hanging.get(job, now) for job in hanging}
        self._woken &= hanging.keys()
        for job, since in self._hanging.items():
            daemon = f"slurmd-{hanging[job].node}"
            if now - since > 2 * ATTEND_AFTER_S and job in self._woken:
                self.note(f"attending: cancels {job}")
                runs = frozenset(run.name for run in self.site.runs() if str(last_job(run)) == job)
                self.injections.append(Injection(job, runs, kind=ATTENDED, began=time.time()))
                self.site.ask("scancel", job)
                self._woken.discard(job)
            elif now - since > ATTEND_AFTER_S and job not in self._woken and daemon not in self.site.away:
                self.note(f"attending: {daemon} of {job} is restarted")
                self.site.daemon("stop", daemon)
                self.site.daemon("start", daemon)
                self._woken.add(job)

    def _release(self, rows: list[Row]) -> None:
        """A requeued task that was started while its node was still ending it is held, and the node drained."""
        held = [row.job_id for row in rows if row.state == "PENDING" and "held" in row.reason]
        if held and all(self.site.resume(f"node{number}") for number in (1, 2)):
            self.note(f"attending: releases {' '.join(held)}, held by SLURM")
            self.site.ask("scontrol", "release", ",".join(held))

    def _hasten(self, rows: list[Row]) -> None:
        """Nobody learns anything from the wait of a requeued task; it is cut short once its node is clean."""
        waiting = {row.job_id for row in rows if row.reason == "BeginTime"}
        self._waiting = {job: self._waiting.get(job, time.monotonic()) for job in waiting}
        for job, since in self._waiting.items():
            if time.monotonic() - since > HASTEN_AFTER_S:
                self.site.ask("scontrol", "update", f"jobid={job}", "starttime=now+2seconds")
                self._waiting[job] = time.monotonic()

    def _tidy_up(self) -> None:
        """Whatever happened: the cluster as it was, and nothing left running or mounted."""
        for press in self._presses:
            kill([press.process.pid])
            press.process.wait()
        deadline = time.monotonic() + 60
        while self._agenda and time.monotonic() < deadline:
            _, _, what = heapq.heappop(self._agenda)
            if what() is False:
                self._later(2, what)
                time.sleep(1)
        self.site.ask("scancel", "--partition=gpu", "--signal=KILL", "--full")
        self.site.ask("scancel", "--partition=gpu")
        if self.problems or not self.table:
            kept = self.folder / "kept"
            subprocess.run(["cp", "-a", str(self.site.disk), str(kept)], check=False)
            self.note(f"what the runs left is in {kept}")
        self.site.close()

    def _count(self) -> str:
        """Faults by kind: how many were injected, and how many attempts ended by them."""
        ended = check.ends_by_kind(self.site, self.injections)
        lines = [f"{'fault':24}{'injected':>10}{'attempts ended':>16}"]
        for name in KINDS:
            count = sum(i.kind == name for i in self.injections)
            lines.append(f"{name:24}{count:>10}{ended.get(name, 0):>16}")
        lines.append(f"{'in all':24}{len(self.injections):>10}{sum(ended.values()):>16}")
        return "\n".join(lines)


def last_job(run: RunDir) -> object:
    """The job of a run's newest attempt."""
    attempts = run.attempts()
    return attempts[-1].get("job") if attempts else None


def command_of(plan: Plan) -> str:
    """What runs a campaign like this again."""
    if plan.kinds == DECK:
        return f"make chaos SEED={plan.seed} MINUTES={plan.minutes:g}"
    only = " ".join(f"--kind {shlex.quote(name)}" for name in plan.kinds)
    return f"python -m tests.slurm.chaos --seed {plan.seed} --minutes {plan.minutes:g} {only}"
