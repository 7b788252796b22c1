"""The kinds of faults: what each does to the cluster, how it is fixed, and which causes it may leave.

A fault returns an `Injection`, or None if it is not possible now. Its fixes run later, so that faults overlap: a fix is
(delay in seconds, function), and a function that returns False is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from hpc.processes import descendants, start_ticks
from hpc.submission.submissions import submissions
from tests.slurm.chaos.site import TIME_MIN, WORKS, Row, Site, Worker, kill, send, states_of

Fix = tuple[float, Callable[[], object]]
# (seconds until the grid is launched, seconds until this launcher is killed; None: never).
Launch = tuple[float, float | None]
# Time until the task of a killed process has left the queue, so that its run is missing there.
UNTIL_MISSED_S = 3.0
# How long a cancelled run must stay cancelled, and how long removed files stay away.
QUIET_S = 12.0
FREEZE, FROZEN_S = "node frozen", 180.0
# Not in the deck: what the administrator of the campaign cancels, see `Campaign._handle_hanging_tasks`.
ADMIN_CANCEL = "cancelled by the administrator"
# Seconds after the fix of a fault within which an attempt may still end because of it.
AFTERMATH_S = 20
# The share of faults that choose an attempt with a checkpoint of its own.
LATE = 0.85


@dataclass
class Injection:
    """One fault that was injected. `victims` are run names, None for all; times are seconds since 1970.

    `problems`: what its fixes found not to hold. While it lasts, nobody launches the grid but its `launches`.
    """

    what: str
    victims: frozenset[str] | None
    lasts_s: float = 0
    fixes: Sequence[Fix] = ()
    launches: Sequence[Launch] = ()
    problems: list[str] = field(default_factory=list)
    kind: str = ""
    began: float = 0
    took_s: float = 0

    @property
    def over(self) -> float:
        """The time after which it cannot end an attempt any more."""
        return self.began + self.took_s + max([self.lasts_s, *(delay for delay, _ in self.fixes)]) + AFTERMATH_S

    def touches(self, run: str, start: float, end: float, over: float | None = None) -> bool:
        """Whether it may have ended an attempt at `run` between these times; `over`: in place of its own."""
        is_victim = self.victims is None or run in self.victims
        return is_victim and self.began <= end and start <= (self.over if over is None else over)


@dataclass(frozen=True)
class Kind:
    """`causes`: in which an attempt may end by it. `unclear_causes`: what ends by other faults may look like meanwhile.

    `alone`: not while a launcher runs. `takes_task`: the task need not come back by itself. `works`: the rounds in
    which it can be injected.
    """

    inject: Callable[[Site, random.Random, Sequence[Row]], Injection | None]
    causes: frozenset[str] = frozenset()
    unclear_causes: frozenset[str] = frozenset()
    needs_disk: bool = False
    alone: bool = False
    takes_task: bool = False
    works: Sequence[str] = WORKS


def _choose(site: Site, rng: random.Random, rows: Sequence[Row]) -> Worker | None:
    """A worker to inject a fault into, mostly one that has saved a checkpoint in this attempt."""
    late = rng.random() < LATE
    workers = [worker for worker in site.workers(rows) if worker.has_saved or not late]
    return rng.choice(workers) if workers else None


def _on_node(site: Site, rows: Sequence[Row], node: str) -> frozenset[str]:
    return frozenset(worker.run.name for worker in site.workers(rows) if worker.row.node == node)


def _succeeds(site: Site, *command: str) -> bool:
    """Run a SLURM command. False if it was refused: the task may have just ended."""
    return site.ask(*command) is not None


def time_limit(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A time limit of 1 minute: the controller signals at its next check. `restore_time_limits` undoes it."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    if not _succeeds(site, "scontrol", "update", f"jobid={worker.row.job_id}", "timelimit=1"):
        return None
    return Injection(f"1 minute for {worker.run.name}", frozenset({worker.run.name}), lasts_s=120)


def restore_time_limits(site: Site, rows: Sequence[Row]) -> None:
    """Give tasks that were requeued after a time limit of 1 minute their usual limit again."""
    for row in rows:
        if row.state == "PENDING" and row.limit == "1:00":
            site.ask("scontrol", "update", f"jobid={row.job_id}", f"timelimit={TIME_MIN}")


def preemption(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A job of a higher partition requests all slices of a node."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    node = worker.row.node
    options = [f"--nodelist={node}", "--gres=gpu:1g.12gb:7", "--time=1", "--mem=100", "--output=/dev/null"]
    answer = site.ask("sbatch", "--parsable", "--partition=urgent", *options, "--wrap=sleep 2")
    if answer is None:
        return None

    def give_up() -> bool:
        """Cancel the job if it still waits: on a node that is down it would preempt whatever runs there later."""
        if "slurmctld" in site.away:
            return False
        # scancel refuses if the job is over, which is just as good.
        site.ask("scancel", "--state=PENDING", answer.strip())
        return True

    return Injection(f"all of {node}", None, lasts_s=60, fixes=[(40, give_up)])


def node_down(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """The controller marks a node as down, while its tasks continue for a moment."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    node = worker.row.node
    if not _succeeds(site, "scontrol", "update", f"nodename={node}", "state=down", "reason=chaos"):
        return None
    return Injection(node, _on_node(site, rows, node), fixes=[(rng.uniform(3, 10), lambda: site.resume(node))])


def node_silent(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """slurmd is killed, for longer than SlurmdTimeout (30 s), after which the node counts as down, or for a moment.

    Its tasks do not notice, and continue beside those that replace them.
    """
    worker = _choose(site, rng, rows)
    if worker is None or f"slurmd-{worker.row.node}" in site.away:
        return None
    daemon = f"slurmd-{worker.row.node}"
    site.daemon("stop", daemon, "--kill")
    delay_s = rng.choice([rng.uniform(3, 15), rng.uniform(45, 60)])
    back = (delay_s, lambda: site.daemon("start", daemon))
    return Injection(f"{daemon} for {delay_s:.0f} s", _on_node(site, rows, worker.row.node), fixes=[back])


def node_frozen(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A node freezes with all its processes, until another task has replaced its task and broken the lock of the run.

    Then the processes continue as if nothing had happened, and SLURM does not end them.
    """
    worker = _choose(site, rng, rows)
    # One node at a time: another node must take over its tasks.
    if worker is None or any(name == "slurmctld" or name.startswith("slurmd-") for name in site.away):
        return None
    there = [other for other in site.workers(rows) if other.row.node == worker.row.node]
    processes = [pid for other in there for pid in site.family(other)]
    daemon = f"slurmd-{worker.row.node}"
    site.daemon("stop", daemon, "--kill")
    send(processes, signal.SIGSTOP)
    # The node counts as down after 30 s, and its heartbeat as stopped after 90 s more.
    back = FROZEN_S + rng.uniform(0, 10)
    fixes = [(back, lambda: send(processes, signal.SIGCONT)), (back + 10, lambda: site.daemon("start", daemon))]
    names = frozenset(other.run.name for other in there)
    return Injection(f"{worker.row.node}, {len(processes)} processes for {back:.0f} s", names, fixes=fixes)


def power_cut(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """All processes of a node end at once."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away or f"slurmd-{worker.row.node}" in site.away:
        return None
    there = [other for other in site.workers(rows) if other.row.node == worker.row.node]
    processes = [pid for other in there for pid in site.family(other)]
    daemon = f"slurmd-{worker.row.node}"
    site.daemon("stop", daemon, "--kill")
    kill(processes)
    back = (rng.uniform(5, 20), lambda: site.daemon("start", daemon))
    # SLURM misses a task younger than BatchStartTimeout only when the node reports again: `_handle_hanging_tasks`.
    names = frozenset(other.run.name for other in there)
    return Injection(f"{worker.row.node}, {len(processes)} processes", names, lasts_s=90, fixes=[back])


def process_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    worker = _choose(site, rng, rows)
    if worker is None:
        return None
    kill([worker.pid])
    return Injection(f"pid {worker.pid} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=2)


def program_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """kill -9 of the process of a user's program, whose supervisor lives on."""
    worker = _choose(site, rng, rows)
    children = descendants([worker.pid]) if worker else []
    if worker is None or not children:
        return None
    kill(children)
    return Injection(f"{len(children)} processes of {worker.run.name}", frozenset({worker.run.name}), lasts_s=3)


def step_daemon_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Kill the slurmstepd of the script, of the step, or both. Their processes continue as orphans."""
    worker = _choose(site, rng, rows)
    found = site.step_daemons(worker) if worker and "slurmctld" not in site.away else {}
    if worker is None or len(found) != 2:
        return None
    chosen = rng.choice([["batch"], ["0"], ["batch", "0"]])
    kill([found[step] for step in chosen])
    what = f"{' and '.join(chosen)} of {worker.row.job_id}, {worker.run.name}"
    return Injection(what, frozenset({worker.run.name}), lasts_s=200)


def signalled(name: str, site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    # The answer does not matter: scancel may report a failure although the signal has arrived.
    _succeeds(site, "scancel", f"--signal={name}", worker.row.job_id)
    return Injection(f"{name} to {worker.run.name}", frozenset({worker.run.name}))


def requeued(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """An administrator puts a running task back into the queue."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    if not _succeeds(site, "scontrol", "requeue", worker.row.job_id):
        return None
    return Injection(f"{worker.row.job_id} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=40)


def _outage(label: str, site: Site, delay_s: float) -> Injection | None:
    if label in site.away:
        return None
    site.daemon("stop", label)

    def start() -> bool:
        # slurmdbd needs its database to become ready.
        if label == "slurmdbd" and "mariadbd" in site.away:
            return False
        site.daemon("start", label)
        return True

    return Injection(f"for {delay_s:.0f} s", None, fixes=[(delay_s, start)])


def controller_away(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """slurmctld is stopped; every other time a task gets SIGTERM meanwhile and cannot requeue itself.

    A query without a controller takes up to 38 s: only in the longest outage does a task finish its queries and reach
    its requeue.
    """
    with_stop = rng.random() < 0.5
    delay_s = rng.uniform(170, 190) if with_stop and rng.random() < 0.2 else rng.uniform(4, 25)
    worker = _choose(site, rng, rows) if with_stop else None
    if with_stop and not worker:
        return None
    done = _outage("slurmctld", site, delay_s)
    if done and worker and start_ticks(worker.pid) is not None:
        os.kill(worker.pid, signal.SIGTERM)
        done.what += f", SIGTERM to {worker.run.name} meanwhile"
        done.victims = frozenset({worker.run.name})
    return done


def accounting_away(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    return _outage("slurmdbd", site, rng.uniform(4, 25))


def database_away(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    return _outage("mariadbd", site, rng.uniform(4, 25))


def disk_full(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Fill the disk of the runs. A few bytes may still fit."""
    if site.disk_full or not site.workers(rows):
        return None
    site.fill_disk(rng.choice([0, 0, 4096, 65536]))
    delay_s = rng.uniform(3, 8)
    return Injection(f"for {delay_s:.0f} s", None, fixes=[(delay_s, site.free_disk)])


def checkpoint_damaged(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A run is killed, and its newest checkpoint is damaged."""
    worker = _choose(site, rng, rows)
    if worker is None or not states_of(worker.run):
        return None
    kill([worker.pid])
    newest = states_of(worker.run)[0]
    data = bytearray(newest.read_bytes())
    place = rng.randrange(len(data))
    # The format of a script's checkpoint may not tell that a bit is another one.
    how = rng.choice(["a flipped bit", "cut short", "emptied"] if site.work != "command" else ["cut short", "emptied"])
    if how == "a flipped bit":
        data[place] ^= 1 << rng.randrange(8)
        newest.write_bytes(data)
    else:
        newest.write_bytes(data[:place] if how == "cut short" else b"")
    return Injection(f"{how}: {newest.name[:14]} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=2)


def submitters(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Two or three users launch the same grid in the same second, while a run is missing in the queue."""
    done = process_killed(site, rng, rows)
    if done:
        done.launches = [(UNTIL_MISSED_S, None)] * rng.choice([2, 3])
        done.what += f", then {len(done.launches)} at once"
    return done


def launcher_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """kill -9 of a launcher at a random moment, while a run is missing in the queue."""
    done = process_killed(site, rng, rows)
    if done:
        after_s = rng.uniform(0.2, 4)
        done.launches = [(UNTIL_MISSED_S, after_s)]
        done.what += f", then a launcher after {after_s:.1f} s"
    return done


def surplus_array(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """The same array is in the queue twice, as after an sbatch that was sent again before its late answer."""
    worker = _choose(site, rng, rows)
    if worker is None or site.disk_full or "slurmctld" in site.away:
        return None
    array = worker.row.job_id.partition("_")[0]
    sweep = worker.run.sweep()
    name = next(each.job_name for each in submissions(sweep) if each.job_id == array)
    answer = site.ask("sbatch", "--parsable", str(sweep.jobs / f"{name}.sh"))
    if answer is None:
        return None
    again = answer.strip()
    return Injection(f"{array} once more, as {again}", None, lasts_s=90)


def cancelled_beside_a_pipeline(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A run is requeued and then cancelled by its user, while a pipeline's job continues the sweep."""
    worker = _choose(site, rng, rows)
    if worker is None or site.disk_full or "slurmctld" in site.away:
        return None
    if not _succeeds(site, "scontrol", "requeue", worker.row.job_id):
        return None
    run = worker.run
    cancelled = site.call("hpc.launch", "cancel", run.label, "--config", str(site.experiment))
    begun = len(run.attempts())
    done = Injection(run.name, frozenset({run.name}), lasts_s=40)
    pipeline = site.start("tests.slurm.chaos.stage", str(site.experiment), str(site.profile), str(run.path.parent))

    def look() -> None:
        kill([pipeline.pid])
        pipeline.wait()
        if cancelled.returncode != 0:
            # The controller was stopped at this moment. The run is marked as cancelled all the same.
            done.what += ", cancel refused"
        if len(run.attempts()) > begun or not (run.cancelled() or run.result()):
            done.problems.append(f"{run.label} was cancelled and began again by itself")

    done.fixes = [(QUIET_S, look)]
    done.launches = [(QUIET_S + 2, None)]
    return done


def images_changed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Replace the decoded images for a while: every label is one higher. A run is killed, and must not continue."""
    folders = [path for path in site.decoded.glob("*") if not path.name.startswith(".")]
    done = process_killed(site, rng, rows) if len(folders) == 1 else None
    if done is None:
        return None
    folder = folders[0]
    kept, changed = (folder.with_name(f".{folder.name}.{name}") for name in ("kept", "changed"))
    shutil.copytree(folder, changed)
    shift_labels(changed)
    # A process that finds no folder decodes the images while it holds this lock.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with lock:
        folder.rename(kept)
        changed.rename(folder)

    def put_back() -> None:
        with lock:
            folder.rename(changed)
            kept.rename(folder)
        shutil.rmtree(changed)

    done.what += f", and {folder.name} has other labels"
    done.victims, done.fixes, done.launches = None, [(QUIET_S, put_back)], [(UNTIL_MISSED_S, None)]
    return done


def shift_labels(folder: Path) -> None:
    """Turn a decoded data set into another one with valid checksums."""
    meta = json.loads((folder / "meta.json").read_text())
    for role in ("train", "valid"):
        path = folder / f"{role}_labels.npy"
        labels = np.load(path)
        np.save(path, (labels + 1) % len(meta["class_names"]))
        meta["files"][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))


def code_removed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """The code snapshot of the tasks is gone for a while, and one of them is requeued."""
    worker = _choose(site, rng, rows)
    if worker is None or site.disk_full or "slurmctld" in site.away:
        return None
    code = worker.run.path.parent / "code"
    away = code.with_name(".code.away")
    if not code.is_dir() or not _succeeds(site, "scontrol", "requeue", worker.row.job_id):
        return None
    code.rename(away)

    def put_back() -> None:
        if code.is_dir():
            shutil.rmtree(code)
        away.rename(code)

    done = Injection(f"of {worker.run.path.parent.name}, {worker.run.name} requeued", None, lasts_s=10)
    done.fixes = [(QUIET_S, put_back)]
    return done


def cores_busy(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Other processes compute on the same cores."""
    count, lasts_s = 2 * (os.cpu_count() or 1), rng.uniform(20, 40)
    if not site.burn(count):
        return None
    return Injection(f"by {count} processes for {lasts_s:.0f} s", None, fixes=[(lasts_s, site.cool)])


def _causes(words: str) -> frozenset[str]:
    return frozenset(words.split())


KINDS: Mapping[str, Kind] = {
    "time limit": Kind(time_limit, _causes("TIMEOUT")),
    "preemption": Kind(preemption, _causes("PREEMPTED")),
    "node down": Kind(node_down, _causes("NODE_FAIL")),
    "node silent": Kind(node_silent, _causes("NODE_FAIL")),
    # The old step may still exist when the requeued task starts. SLURM then fails the task at once.
    FREEZE: Kind(node_frozen, _causes("NODE_FAIL"), unclear_causes=_causes("KILLED"), takes_task=True),
    "power cut": Kind(power_cut, _causes("NODE_FAIL")),
    "kill -9 process": Kind(process_killed, _causes("KILLED")),
    "kill -9 program": Kind(program_killed, _causes("KILLED"), works=("program", "example", "command")),
    # The orphan belongs to a job that SLURM misses, or that the administrator cancels.
    "kill -9 slurmstepd": Kind(step_daemon_killed, _causes("NODE_FAIL CANCELLED KILLED")),
    "scancel --signal=TERM": Kind(partial(signalled, "TERM"), _causes("SIGNALLED")),
    "scancel --signal=USR2": Kind(partial(signalled, "USR2"), _causes("SIGNALLED")),
    "requeued": Kind(requeued, _causes("REQUEUED")),
    "slurmctld away": Kind(controller_away, _causes("SIGNALLED"), unclear_causes=_causes("SIGNALLED KILLED")),
    # Without accounting, a task that SLURM has requeued for the loss of its node knows only that it was requeued.
    "slurmdbd away": Kind(accounting_away, unclear_causes=_causes("KILLED PREEMPTED REQUEUED")),
    "mariadbd away": Kind(database_away, unclear_causes=_causes("KILLED PREEMPTED REQUEUED")),
    "full disk": Kind(disk_full, _causes("CRASHED KILLED"), needs_disk=True),
    "damaged checkpoint": Kind(checkpoint_damaged, _causes("KILLED")),
    "several submitters": Kind(submitters, _causes("KILLED")),
    "kill -9 launcher": Kind(launcher_killed, _causes("KILLED")),
    "surplus array": Kind(surplus_array, _causes("CANCELLED"), takes_task=True),
    "cancel beside a pipeline": Kind(
        cancelled_beside_a_pipeline, _causes("CANCELLED REQUEUED"), alone=True, takes_task=True
    ),
    # A run that starts meanwhile is refused, and continues after `retry`.
    "images changed": Kind(images_changed, _causes("KILLED CRASHED"), works=("images",)),
    # A late import of a running task fails.
    "code removed": Kind(code_removed, _causes("REQUEUED CRASHED KILLED"), takes_task=True),
    "cores busy": Kind(cores_busy),
    ADMIN_CANCEL: Kind(lambda site, rng, rows: None, _causes("CANCELLED")),
}
