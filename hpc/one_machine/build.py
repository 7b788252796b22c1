"""Builds a cluster from its spec, and removes it without a trace."""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hpc.one_machine import daemons, memory
from hpc.one_machine.machine import OneMachine, Ports
from hpc.one_machine.processes import Process
from hpc.one_machine.records import Record, all_records, record_path, write_record
from hpc.one_machine.settings import (
    cgroup_conf_text,
    database_setup_text,
    gres_conf_text,
    slurm_conf_text,
    slurmdbd_conf_text,
)
from src.errors import ClusterError
from src.log import log

PORTS = range(20000, 32000)  # below those that the kernel gives to outgoing connections


@dataclass(frozen=True)
class ClusterSpec:
    """What `up` is asked for; without a folder, the cluster gets one among the temporary files, named after it."""

    name: str
    folder: Path | None
    nodes: int
    preempt_user_signal: bool
    requeue_wait_s: int


def make_machine(spec: ClusterSpec) -> OneMachine:
    """A new cluster as it was asked for, with ports of its own. Raises ClusterError."""
    default = Path(tempfile.gettempdir()).resolve() / f"relay-slurm-{os.geteuid()}-{spec.name}"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ClusterError(f"SLURM needs a user with a name, and uid {os.geteuid()} has none here") from None
    return OneMachine(
        name=spec.name,
        folder=default if spec.folder is None else spec.folder.absolute(),
        host=socket.gethostname().partition(".")[0],
        user=user,
        ports=choose_ports(spec.nodes),
        db_password=secrets.token_hex(16),
        first_job_id=1 + int(time.time()) // 10 % 60_000_000,  # a later cluster does not give the same ids again
        preempt_user_signal=spec.preempt_user_signal,
        requeue_wait_s=spec.requeue_wait_s,
    )


def choose_ports(nodes: int) -> Ports:
    """Ports that nobody listens on and no other cluster of this user counts on. Raises ClusterError if too few."""
    taken = {port for record in all_records() for port in _ports_of(record.machine.ports)}
    candidates = (port for port in random.sample(PORTS, len(PORTS)) if port not in taken and _is_free(port))
    found = [port for port, _ in zip(candidates, range(3 + nodes), strict=False)]
    if len(found) < 3 + nodes:
        raise ClusterError(f"fewer than {3 + nodes} free ports between {PORTS.start} and {PORTS.stop}")
    return Ports(found[0], found[1], found[2], tuple(found[3:]))


def _ports_of(ports: Ports) -> tuple[int, ...]:
    return (ports.mariadb, ports.slurmdbd, ports.slurmctld, *ports.slurmd)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def start_cluster(record: Record) -> None:
    """Whatever ends this early, Ctrl-C too, is followed by the end of every daemon that was started."""
    start_s = time.monotonic()
    try:
        record.machine.folder.mkdir(parents=True)
    except FileExistsError:
        raise ClusterError(
            f"{record.machine.folder} exists already and is no cluster that is known. "
            "Try --dir with a folder that does not exist yet"
        ) from None

    def save(process: Process) -> None:
        record.processes.append(process)
        write_record(record)

    try:
        write_record(record)
        write_files(record.machine)
        daemons.Starter(record.machine, save).start_all()
    except BaseException:
        log.warning("failed; removing what was started")
        remove(record)
        raise
    log.info(f"the cluster {record.label} is up after {time.monotonic() - start_s:.1f} s")


def write_files(machine: OneMachine) -> None:
    """Fills the folder, which exists and is empty, with all that the daemons read."""
    for folder in (machine.munge, machine.state, machine.spool, machine.logs, machine.slice_files[0].parent):
        folder.mkdir(mode=0o755)
    for path in machine.slice_files:
        path.symlink_to(os.devnull)
    limits_memory = memory.make_group(machine)
    if limits_memory:
        _write(machine.cgroup_conf, cgroup_conf_text(machine), 0o644)
    else:
        log.warning(f"jobs may take more memory than they ask for: no cgroups can be made in {memory.HIERARCHY}")
    _write(machine.slurm_conf, slurm_conf_text(machine, limits_memory=limits_memory), 0o644)
    _write(machine.gres_conf, gres_conf_text(machine), 0o644)
    _write(machine.slurmdbd_conf, slurmdbd_conf_text(machine), 0o600)
    _write(machine.database_setup, database_setup_text(machine), 0o600)
    _write(machine.munge_key, secrets.token_hex(64), 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """A secret must not be readable even for a moment, so the file is made with its final mode."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def remove(record: Record) -> None:
    """The record goes last: while it is there, `down` can be asked again."""
    daemons.stop_all(record.machine, record.processes)
    memory.remove_group(record.machine)
    remove_folder(record.machine.folder)
    record_path(record.machine.name).unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """A dying process may write for a moment longer. Raises ClusterError if the folder stays."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise ClusterError(f"{folder} cannot be removed. See who uses it, then try the same command again")
