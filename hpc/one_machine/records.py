"""A file for each cluster of this user, and the lock for changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hpc.one_machine.machine import OneMachine, Ports, Proctrack
from hpc.one_machine.processes import Process
from relay import hints
from relay.errors import ClusterError
from relay.log import log


@dataclasses.dataclass
class Record:
    """A cluster and its processes, saved after the start of each daemon: `down` can also remove a half-started one."""

    machine: OneMachine
    processes: list[Process]
    clone: str = ""  # the checkout whose command started it

    @property
    def label(self) -> str:
        """The name, and the clone that the cluster belongs to."""
        return f"{self.machine.name} of {self.clone}" if self.clone else self.machine.name

    def is_complete(self) -> bool:
        """Whether every daemon was started: munged, mariadbd, slurmdbd, slurmctld, and a slurmd for each node."""
        return len(self.processes) == 4 + len(self.machine.nodes)

    def dead_daemons(self) -> list[str]:
        """The daemons that were started and do not run any more."""
        return [process.label for process in self.processes if not process.is_alive()]


def own_clone() -> str:
    """The checkout that this module belongs to."""
    return str(Path(__file__).resolve().parents[2])


def own_name() -> str:
    """The default name of the cluster: each clone has its own."""
    return f"relay_{hashlib.sha256(own_clone().encode()).hexdigest()[:8]}"


def boot_id() -> str:
    """An id that changes at every reboot. Recorded pids are meaningless after one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def records_folder() -> Path:
    """The folder of the records, created if missing. Raises ClusterError if another user created it first."""
    folder = Path(tempfile.gettempdir()).resolve() / f"relay-slurm-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ClusterError(
            f"{folder} belongs to another user. Use another folder: TMPDIR=~ {hints.python('hpc.one_machine', 'up')}"
        )
    return folder


def record_path(name: str) -> Path:
    """The record lies outside the cluster's folder, so that `down --name` works without the path of that folder."""
    return records_folder() / f"{name}.json"


def write_record(record: Record) -> None:
    """Replace the record atomically. Only this user may read it: it contains the database password."""
    content = dataclasses.asdict(record) | {"boot_id": boot_id()}
    path = record_path(record.machine.name)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, default=str)
    fresh.replace(path)


def read_record(name: str) -> Record | None:
    """The record of a cluster; None if there is none. It has no processes if the machine was rebooted since."""
    path = record_path(name)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    ports = content["machine"].pop("ports")
    ports = Ports(**{**ports, "slurmd": tuple(ports["slurmd"])})
    folder = Path(content["machine"].pop("folder"))
    processes = [Process(**process) for process in content["processes"]] if content["boot_id"] == boot_id() else []
    # The record of another clone may come from a version without this option.
    proctrack = Proctrack(content["machine"].pop("proctrack", Proctrack.LINUXPROC))
    machine = OneMachine(**content["machine"], folder=folder, ports=ports, proctrack=proctrack)
    return Record(machine, processes, content.get("clone", ""))


def all_records() -> list[Record]:
    """The clusters of this user, sorted by name."""
    names = sorted(path.stem for path in records_folder().glob("*.json"))
    return [record for name in names if (record := read_record(name)) is not None]


@contextmanager
def lock_clusters() -> Iterator[None]:
    """Allow one `up` or `down` at a time: two at once would choose the same free ports."""
    lock = FileLock(records_folder() / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another up or down to finish")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
