"""The kinds of faults: what each does to the cluster, how it is mended, and which causes it may leave.

A fault returns what it did, or None where there is nothing now that it could be done to. Mending is put off, as
(delay in seconds, what to do), so that faults may overlap; it gives False where it is to be tried again.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hpc.one_machine.processes import start_ticks
from src.checkpoint_names import list_states

from .site import TIME_MIN, Row, Site, Worker, kill

Mending = tuple[float, Callable[[], object]]
# A grid that is launched after so many seconds, and the launcher killed so many seconds later.
Launch = tuple[float, float | None]
# When the task of a killed process has left the queue, so that its run is missing there.
UNTIL_MISSED_S = 3.0
# An attempt that ends so much later than its fault was mended did not end by it.
AFTERMATH_S = 20
# How many of the faults wait for an attempt that has come somewhere.
LATE = 0.85


@dataclass
class Injection:
    """One fault that was done. `victims` are run names, None for all; times are seconds since 1970."""

    what: str
    victims: frozenset[str] | None
    lasts_s: float = 0
    mending: Sequence[Mending] = ()
    launches: Sequence[Launch] = ()
    kind: str = ""
    began: float = 0
    took_s: float = 0

    @property
    def over(self) -> float:
        """When it cannot end an attempt any more."""
        return self.began + self.took_s + max([self.lasts_s, *(delay for delay, _ in self.mending)]) + AFTERMATH_S

    def touches(self, run: str, start: float, end: float) -> bool:
        """Whether it may have ended an attempt at `run` between these times."""
        return (self.victims is None or run in self.victims) and self.began <= end and start <= self.over


@dataclass(frozen=True)
class Kind:
    """`causes` are what it may end an attempt in; `blurs` what others may leave while nobody can say what they were."""

    inject: Callable[[Site, random.Random, Sequence[Row]], Injection | None]
    causes: frozenset[str] = frozenset()
    blurs: frozenset[str] = frozenset()
    needs_disk: bool = False


def _choose(site: Site, rng: random.Random, rows: Sequence[Row]) -> Worker | None:
    """Mostly one that has saved something in this attempt; a fault may come before that, too."""
    late = rng.random() < LATE
    workers = [worker for worker in site.workers(rows) if worker.has_saved or not late]
    return rng.choice(workers) if workers else None


def _on_node(site: Site, rows: Sequence[Row], node: str) -> frozenset[str]:
    return frozenset(worker.run.name for worker in site.workers(rows) if worker.row.node == node)


def _told(site: Site, *command: str) -> bool:
    """False where it was refused: the task may have ended in this moment."""
    return site.ask(*command) is not None


def time_limit(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A minute in all: the signal to save comes with the controller's next look. `heal_limits` gives the time back."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    if not _told(site, "scontrol", "update", f"jobid={worker.row.job_id}", "timelimit=1"):
        return None
    return Injection(f"1 minute for {worker.run.name}", frozenset({worker.run.name}), lasts_s=120)


def heal_limits(site: Site, rows: Sequence[Row]) -> None:
    """What comes back after its time limit has the usual time again."""
    for row in rows:
        if row.state == "PENDING" and row.limit == "1:00":
            site.ask("scontrol", "update", f"jobid={row.job_id}", f"timelimit={TIME_MIN}")


def preemption(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Somebody more important wants all slices of a node."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    node = worker.row.node
    options = [f"--nodelist={node}", "--gres=gpu:1g.12gb:7", "--time=1", "--mem=100", "--output=/dev/null"]
    if not _told(site, "sbatch", "--partition=urgent", *options, "--wrap=sleep 2"):
        return None
    return Injection(f"all of {node}", _on_node(site, rows, node), lasts_s=60)


def node_down(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """The controller gives up a node, whose tasks go on for a moment without it."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    node = worker.row.node
    if not _told(site, "scontrol", "update", f"nodename={node}", "state=down", "reason=chaos"):
        return None
    return Injection(node, _on_node(site, rows, node), mending=[(rng.uniform(3, 10), lambda: site.resume(node))])


def node_silent(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """slurmd is gone for so long that the node counts as down (SlurmdTimeout, 30 s), or only for a moment.

    Its tasks know nothing of it, and go on beside those that are put in their place.
    """
    worker = _choose(site, rng, rows)
    if worker is None or f"slurmd-{worker.row.node}" in site.away:
        return None
    daemon = f"slurmd-{worker.row.node}"
    site.daemon("stop", daemon, "--kill")
    delay_s = rng.choice([rng.uniform(3, 15), rng.uniform(45, 60)])
    back = (delay_s, lambda: site.daemon("start", daemon))
    return Injection(f"{daemon} for {delay_s:.0f} s", _on_node(site, rows, worker.row.node), mending=[back])


def power_cut(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """All processes of a node end in one moment."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away or f"slurmd-{worker.row.node}" in site.away:
        return None
    there = [other for other in site.workers(rows) if other.row.node == worker.row.node]
    processes = [pid for other in there for pid in site.family(other)]
    daemon = f"slurmd-{worker.row.node}"
    site.daemon("stop", daemon, "--kill")
    kill(processes)
    back = (rng.uniform(5, 20), lambda: site.daemon("start", daemon))
    # Tasks younger than BatchStartTimeout are missed only when the node reports again: see `Campaign._attend`.
    names = frozenset(other.run.name for other in there)
    return Injection(f"{worker.row.node}, {len(processes)} processes", names, lasts_s=90, mending=[back])


def process_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    worker = _choose(site, rng, rows)
    if worker is None:
        return None
    kill([worker.pid])
    return Injection(f"pid {worker.pid} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=2)


def step_daemon_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """slurmstepd of the script, of the step, or both: what they watched over goes on as an orphan."""
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
    # Whatever scancel answers: it may say that it failed when the signal is there already.
    _told(site, "scancel", f"--signal={name}", worker.row.job_id)
    return Injection(f"{name} to {worker.run.name}", frozenset({worker.run.name}))


def requeued(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """An administrator puts a running task back into the queue."""
    worker = _choose(site, rng, rows)
    if worker is None or "slurmctld" in site.away:
        return None
    if not _told(site, "scontrol", "requeue", worker.row.job_id):
        return None
    return Injection(f"{worker.row.job_id} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=40)


def _outage(label: str, site: Site, delay_s: float) -> Injection | None:
    if label in site.away:
        return None
    site.daemon("stop", label)
    return Injection(f"for {delay_s:.0f} s", None, mending=[(delay_s, lambda: site.daemon("start", label))])


def controller_away(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Every other time with a task that is asked to stop meanwhile, and finds nobody to give itself back to.

    A question to nobody takes up to 38 s: only in the longest outage a task is through with asking why, and comes to
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
    """Under everything that runs write; a few bytes may still fit."""
    if site.disk_full or not site.workers(rows):
        return None
    site.fill_disk(rng.choice([0, 0, 4096, 65536]))
    delay_s = rng.uniform(3, 8)
    return Injection(f"for {delay_s:.0f} s", None, mending=[(delay_s, site.free_disk)])


def checkpoint_damaged(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """A run is killed, and its newest state is no longer what was written."""
    worker = _choose(site, rng, rows)
    if worker is None or not list_states(worker.run.checkpoints):
        return None
    kill([worker.pid])
    newest = list_states(worker.run.checkpoints)[0]
    data = bytearray(newest.read_bytes())
    place = rng.randrange(len(data))
    how = rng.choice(["a flipped bit", "cut short", "emptied"])
    if how == "a flipped bit":
        data[place] ^= 1 << rng.randrange(8)
        newest.write_bytes(data)
    else:
        newest.write_bytes(data[:place] if how == "cut short" else b"")
    return Injection(f"{how}: {newest.name[:14]} of {worker.run.name}", frozenset({worker.run.name}), lasts_s=2)


def submitters(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """Two or three launch the same grid in the same second, with something missing in it."""
    done = process_killed(site, rng, rows)
    if done:
        done.launches = [(UNTIL_MISSED_S, None)] * rng.choice([2, 3])
        done.what += f", then {len(done.launches)} at once"
    return done


def launcher_killed(site: Site, rng: random.Random, rows: Sequence[Row]) -> Injection | None:
    """kill -9 of a launcher at some moment of its work, with something missing in the grid."""
    done = process_killed(site, rng, rows)
    if done:
        after_s = rng.uniform(0.2, 4)
        done.launches = [(UNTIL_MISSED_S, after_s)]
        done.what += f", then a launcher after {after_s:.1f} s"
    return done


def _causes(words: str) -> frozenset[str]:
    return frozenset(words.split())


KINDS: Mapping[str, Kind] = {
    "time limit": Kind(time_limit, _causes("TIMEOUT")),
    "preemption": Kind(preemption, _causes("PREEMPTED")),
    "node down": Kind(node_down, _causes("NODE_FAIL")),
    "node silent": Kind(node_silent, _causes("NODE_FAIL")),
    "power cut": Kind(power_cut, _causes("NODE_FAIL")),
    "kill -9 process": Kind(process_killed, _causes("KILLED")),
    # The orphan may be left behind by a job that SLURM misses, or that an attentive user cancels.
    "kill -9 slurmstepd": Kind(step_daemon_killed, _causes("NODE_FAIL CANCELLED KILLED")),
    "scancel --signal=TERM": Kind(partial(signalled, "TERM"), _causes("SIGNALLED")),
    "scancel --signal=USR2": Kind(partial(signalled, "USR2"), _causes("SIGNALLED")),
    "requeued": Kind(requeued, _causes("REQUEUED")),
    "slurmctld away": Kind(controller_away, _causes("SIGNALLED"), blurs=_causes("SIGNALLED KILLED")),
    "slurmdbd away": Kind(accounting_away, blurs=_causes("KILLED PREEMPTED")),
    "mariadbd away": Kind(database_away, blurs=_causes("KILLED PREEMPTED")),
    "full disk": Kind(disk_full, _causes("CRASHED KILLED"), needs_disk=True),
    "damaged checkpoint": Kind(checkpoint_damaged, _causes("KILLED")),
    "several submitters": Kind(submitters, _causes("KILLED")),
    "kill -9 launcher": Kind(launcher_killed, _causes("KILLED")),
}
