"""A campaign: grids on a real SLURM with faults from a seed, after which every cell is done once and correctly."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from relay.runs.rundir import RunDir
from tests.conftest import ROOT
from tests.slurm.chaos import check
from tests.slurm.chaos.faults import ADMIN_CANCEL, KINDS, Injection, restore_time_limits
from tests.slurm.chaos.site import Row, Site, kill
from tests.slurm.conftest import Cluster

Report = Callable[[str], None]
LAUNCH_EVERY_S = 6.0
HANGING_AFTER_S = 20.0
SHORTEN_WAIT_AFTER_S = 8.0
SKIP_KIND_AFTER_S = 8.0
FINISH_S = 900.0
DECK = tuple(name for name in KINDS if name != ADMIN_CANCEL)


@dataclass(frozen=True)
class Plan:
    """The options of a campaign. `pace_s`: the mean time between two faults. `kinds`: the faults of its deck.

    `works`: those of its rounds, by turns, see `tests.slurm.chaos.site.WORKS`.
    """

    seed: int
    minutes: float
    cells: int = 4
    epochs: int = 120
    pace_s: float = 10.0
    kinds: tuple[str, ...] = DECK
    works: tuple[str, ...] = ("images", "program", "command")


@dataclass
class Launcher:
    """One running launch command: its start, its log, and when to kill it."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float
    killed_at: float | None = None
    fresh: bool = False


@dataclass
class Campaign:
    """See `run`. `report` gets a line for every fault and whatever else happens."""

    plan: Plan
    cluster: Cluster
    folder: Path
    report: Report = print
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
        self._launchers: list[Launcher] = []
        self._launched_at = self._busy_until = self._next_fault = 0.0
        self._refused = False
        self._hanging: dict[str, float] = {}
        self._restarted: set[str] = set()
        self._waiting: dict[str, float] = {}
        self._deck: list[str] = []

    def note(self, text: str) -> None:
        self.report(f"{time.strftime('%H:%M:%S')} {time.monotonic() - self.started:6.1f} s  {text}")

    def run(self) -> list[str]:
        """Run the campaign to its end. Returns a line for each thing that is wrong."""
        self.site.prepare(self.plan.cells, self.plan.epochs)
        if not self.site.has_disk:
            self.note("no file system can be mounted here: skipping 'full disk'")
        try:
            with self._reference() as reference:
                self._launch("--fresh")
                self._run_until(time.monotonic() + 60 * self.plan.minutes, with_faults=True)
                self.note("no more faults")
                self._run_until(time.monotonic() + FINISH_S, with_faults=False)
                output, _ = reference.communicate(timeout=1800)
                assert reference.returncode == 0, output
            self.problems += [problem for injection in self.injections for problem in injection.problems]
            self.problems += check.find_problems(self.site, self.injections)
            self.table = self._count()
        finally:
            self._clean_up()
        return self.problems

    @contextmanager
    def _reference(self) -> Iterator[subprocess.Popen[str]]:
        """The same grids in the foreground, never disturbed, in another runs directory."""
        env = {**self.cluster.env, "SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        commands = []
        for work in self.plan.works:
            command = [sys.executable, "-m", "src.grid_search", "--config", str(self.site.experiment_of(work))]
            # With images of its own: a fault changes those of the campaign.
            own_images = [f"dataset.root={self.folder / 'data-of-reference'}"] if work == "images" else []
            for value in (f"paths.runs_dir={self.folder / 'reference'}", *own_images):
                command += ["--set", value]
            commands.append(shlex.join(command))
        with subprocess.Popen(
            ["bash", "-c", " && ".join(commands)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process:
            yield process
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _run_until(self, end: float, *, with_faults: bool) -> None:
        while time.monotonic() < end:
            self._run_agenda()
            self._check_launchers()
            rows = self.site.queue()
            if rows is not None:
                restore_time_limits(self.site, rows)
                self._handle_hanging_tasks(rows)
                self._release_held(rows)
                self._shorten_waits(rows)
                if with_faults and time.monotonic() >= self._next_fault:
                    self._inject(rows)
            if self._is_done() and not self._launchers:
                if not with_faults and not self._agenda:
                    return
                if with_faults:
                    self._launch("--fresh")
            elif rows is not None:
                self._launch_if_due(rows)
            time.sleep(0.5)
        if not with_faults:
            left = [run.label for run in self.site.runs() if run.result() is None]
            self.problems.append(f"not done {FINISH_S:.0f} s after the last fault: {', '.join(left) or 'a fix'}")

    def _is_done(self) -> bool:
        runs = self.site.runs()
        return len(self.site.sweeps()) == self.rounds and all(run.result() is not None for run in runs)

    def _inject(self, rows: list[Row]) -> None:
        """Inject the next kind of the deck that is possible now. A deck holds each kind once."""
        if not any(map(self._fits, self._deck)):
            more = list(filter(self._fits, self.plan.kinds))
            self.rng.shuffle(more)
            self._deck += more
        fitting = list(filter(self._fits, self._deck))
        # The first kind has priority for a while, so that a seed gives the same order whenever that is possible.
        in_order = time.monotonic() < self._next_fault + SKIP_KIND_AFTER_S
        for name in fitting[:1] if in_order else fitting:
            if KINDS[name].alone and self._launchers:
                continue
            # A generator of its own, so that it does not depend on how often other kinds were tried.
            rng = random.Random(f"{self.plan.seed} {len(self.injections)} {name}")
            began = time.time()
            done = KINDS[name].inject(self.site, rng, rows)
            if done:
                self._deck.remove(name)
                done.kind, done.began, done.took_s = name, began, time.time() - began
                self.injections.append(done)
                self.note(f"{name}: {done.what}")
                for delay_s, fix in done.fixes:
                    self._later(delay_s, fix)
                for delay_s, killed_after_s in done.launches:
                    self._later(delay_s, partial(self._launch, killed_after_s=killed_after_s))
                    self._busy_until = max(self._busy_until, time.monotonic() + delay_s + 1)
                self._next_fault = time.monotonic() + self.rng.uniform(0.5, 1.5) * self.plan.pace_s
                if KINDS[name].alone:
                    self._next_fault = max(self._next_fault, self._busy_until)
                return

    def _fits(self, name: str) -> bool:
        """Whether a kind of fault can be injected on this machine in this round."""
        kind = KINDS[name]
        return self.site.work in kind.works and (self.site.has_disk or not kind.needs_disk)

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (time.monotonic() + delay_s, next(self._numbers), what))

    def _run_agenda(self) -> None:
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            _, _, what = heapq.heappop(self._agenda)
            if what() is False:
                self._later(2, what)

    def _launch(self, *words: str, killed_after_s: float | None = None) -> None:
        """Launch the grid as a user does, or launch what is missing of it."""
        if "--fresh" in words:
            self.rounds += 1
            self.site.work = self.plan.works[(self.rounds - 1) % len(self.plan.works)]
            self.note(f"round {self.rounds}: {self.site.work}")
        command = words if words and words[0] == "retry" else ("grid", *words)
        log = self.folder / f"launch-{next(self._numbers):04d}.log"
        process = self.site.launch(log, *command)
        killed_at = None if killed_after_s is None else time.monotonic() + killed_after_s
        self._launchers.append(Launcher(process, log, time.time(), killed_at, fresh="--fresh" in words))
        self._launched_at = time.monotonic()

    def _launch_if_due(self, rows: list[Row]) -> None:
        """Launch the grid soon if a run seems to be missing in the queue, and from time to time in any case."""
        missing = sum(run.result() is None for run in self.site.runs()) - len(rows)
        wait_s = LAUNCH_EVERY_S if missing > 0 else 4 * LAUNCH_EVERY_S
        now = time.monotonic()
        if not self._launchers and now >= self._busy_until and now - self._launched_at >= wait_s:
            words = ("retry", "--failed") if self._refused else ()
            self._refused = False
            self._launch(*words)

    def _check_launchers(self) -> None:
        for launcher in list(self._launchers):
            if launcher.killed_at is not None and time.monotonic() >= launcher.killed_at:
                kill([launcher.process.pid])
            if launcher.process.poll() is None:
                continue
            self._launchers.remove(launcher)
            text = launcher.log.read_text(errors="replace")
            self._refused = self._refused or "-m hpc.launch retry" in text
            if problem := self._find_problem(launcher, text):
                self.problems.append(f"{launcher.log.name}: {problem}")
                self.note(f"PROBLEM {problem}")
            if launcher.fresh and len(self.site.sweeps()) < self.rounds:
                # Refused before the sweep existed; launched again later.
                self.rounds -= 1

    def _find_problem(self, launcher: Launcher, text: str) -> str:
        code = launcher.process.returncode
        if "Traceback" in text:
            return f"a traceback\n{text}"
        outages = [i for i in self.injections if i.kind in check.REFUSALS and i.began <= time.time()]
        excused = any(launcher.began <= i.over for i in outages) or launcher.killed_at is not None
        return f"exit code {code}\n{text}" if code != 0 and not excused else ""

    def _handle_hanging_tasks(self, rows: list[Row]) -> None:
        """Do what an administrator does with tasks that SLURM shows as running, but that have no process any more.

        First restart slurmd, so that the node reports again. If that does not help, cancel the task.
        """
        alive = {worker.row.job_id for worker in self.site.workers(rows)}
        begun = {a.job for run in self.site.runs() for a in run.attempts()}
        hanging = {row.job_id: row for row in rows if row.state == "RUNNING" and row.job_id in begun - alive}
        now = time.monotonic()
        self._hanging = {job: self._hanging.get(job, now) for job in hanging}
        self._restarted &= hanging.keys()
        for job, since in self._hanging.items():
            daemon = f"slurmd-{hanging[job].node}"
            if now - since > 2 * HANGING_AFTER_S and job in self._restarted:
                self.note(f"administrator: cancels {job}")
                runs = frozenset(run.name for run in self.site.runs() if str(last_job(run)) == job)
                self.injections.append(Injection(job, runs, kind=ADMIN_CANCEL, began=time.time()))
                self.site.ask("scancel", job)
                self._restarted.discard(job)
            elif now - since > HANGING_AFTER_S and job not in self._restarted and daemon not in self.site.away:
                self.note(f"administrator: {daemon} of {job} is restarted")
                self.site.daemon("stop", daemon)
                self.site.daemon("start", daemon)
                self._restarted.add(job)

    def _release_held(self, rows: list[Row]) -> None:
        """Release tasks that SLURM holds, and resume drained nodes.

        SLURM does both if it starts a requeued task on a node that still ends the previous execution.
        """
        held = [row.job_id for row in rows if row.state == "PENDING" and "held" in row.reason]
        if held and all(self.site.resume(f"node{number}") for number in (1, 2)):
            self.note(f"administrator: releases {' '.join(held)}, held by SLURM")
            self.site.ask("scontrol", "release", ",".join(held))

    def _shorten_waits(self, rows: list[Row]) -> None:
        """Shorten the time that requeued tasks wait, once their node is clean: the wait itself tests nothing."""
        waiting = {row.job_id for row in rows if row.reason == "BeginTime"}
        self._waiting = {job: self._waiting.get(job, time.monotonic()) for job in waiting}
        for job, since in self._waiting.items():
            if time.monotonic() - since > SHORTEN_WAIT_AFTER_S:
                self.site.ask("scontrol", "update", f"jobid={job}", "starttime=now+2seconds")
                self._waiting[job] = time.monotonic()

    def _clean_up(self) -> None:
        """Restore the cluster, and leave nothing running or mounted, whatever happened."""
        for launcher in self._launchers:
            kill([launcher.process.pid])
            launcher.process.wait()
        deadline = time.monotonic() + 60
        while self._agenda and time.monotonic() < deadline:
            _, _, what = heapq.heappop(self._agenda)
            if what() is False:
                self._later(2, what)
                time.sleep(1)
        self.site.ask("scancel", "--partition=gpu", "--signal=KILL", "--full")
        self.site.ask("scancel", "--partition=gpu")
        if self.problems or not self.table:
            saved = self.folder / "saved"
            subprocess.run(["cp", "-a", str(self.site.disk), str(saved)], check=False)
            self.note(f"the directories of the runs are saved in {saved}")
        self.site.close()

    def _count(self) -> str:
        """A table of the kinds of faults: how many were injected, and how many attempts they ended."""
        ended = check.count_ends_by_kind(self.site, self.injections)
        lines = [f"{'fault':24}{'injected':>10}{'attempts ended':>16}"]
        for name in KINDS:
            count = sum(i.kind == name for i in self.injections)
            lines.append(f"{name:24}{count:>10}{ended.get(name, 0):>16}")
        lines.append(f"{'in all':24}{len(self.injections):>10}{sum(ended.values()):>16}")
        return "\n".join(lines)


def last_job(run: RunDir) -> str | None:
    """The job of a run's newest attempt."""
    attempts = run.attempts()
    return attempts[-1].job if attempts else None


def command_of(plan: Plan) -> str:
    """The command that repeats this campaign."""
    options = [] if plan.kinds == DECK else [f"--kind {shlex.quote(name)}" for name in plan.kinds]
    options += [] if plan.works == Plan.works else [f"--work {name}" for name in plan.works]
    if not options:
        return f"make chaos SEED={plan.seed} MINUTES={plan.minutes:g}"
    return f"python -m tests.slurm.chaos --seed {plan.seed} --minutes {plan.minutes:g} {' '.join(options)}"
