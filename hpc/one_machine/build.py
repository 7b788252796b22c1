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

from hpc.one_machine import cgroups, daemons
from hpc.one_machine.machine import OneMachine, Ports, Proctrack
from hpc.one_machine.processes import Process
from hpc.one_machine.records import Record, all_records, record_path, write_record
from hpc.one_machine.settings import (
    cgroup_conf_text,
    database_setup_text,
    gres_conf_text,
    slurm_conf_text,
    slurmdbd_conf_text,
)
from relay.errors import ClusterError
from relay.log import log

# Below the ephemeral ports, which Linux takes for outgoing connections (net.ipv4.ip_local_port_range: 32768 and up).
PORTS = range(20000, 32000)


@dataclass(frozen=True)
class ClusterSpec:
    """The options of `up`. Without a folder, the cluster gets one in the temporary folder, named after the cluster."""

    name: str
    folder: Path | None
    nodes: int
    preempt_user_signal: bool
    requeue_wait_s: int
    proctrack: Proctrack = Proctrack.LINUXPROC


def make_machine(spec: ClusterSpec) -> OneMachine:
    """A new cluster for the spec, on free ports.

    Raises ClusterError if the spec is invalid, the user has no name, or this machine lacks the cgroups for it.
    """
    default = Path(tempfile.gettempdir()).resolve() / f"relay-slurm-{os.geteuid()}-{spec.name}"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ClusterError(f"SLURM needs a user name, and uid {os.geteuid()} has none on this machine") from None
    if spec.proctrack is Proctrack.CGROUP and (reason := cgroups.why_not("freezer")):
        raise ClusterError(f"--proctrack cgroup: {reason}. Use --proctrack linuxproc")
    return OneMachine(
        name=spec.name,
        folder=default if spec.folder is None else spec.folder.absolute(),
        host=socket.gethostname().partition(".")[0],
        user=user,
        ports=choose_ports(spec.nodes),
        db_password=secrets.token_hex(16),
        first_job_id=1
        + int(time.time()) // 10 % 60_000_000,  # grows every 10 s, so that a later cluster does not reuse job ids
        preempt_user_signal=spec.preempt_user_signal,
        requeue_wait_s=spec.requeue_wait_s,
        proctrack=spec.proctrack,
    )


def choose_ports(nodes: int) -> Ports:
    """Ports that are free and that no other cluster of this user has. Raises ClusterError if there are too few."""
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
    """Create the folder and start all daemons. Any error, also Ctrl-C, stops the daemons that were started."""
    start_s = time.monotonic()
    try:
        record.machine.folder.mkdir(parents=True)
    except FileExistsError:
        raise ClusterError(
            f"{record.machine.folder} already exists and belongs to no known cluster. "
            "Choose another folder: --dir NEW_FOLDER"
        ) from None

    def save(process: Process) -> None:
        record.processes.append(process)
        write_record(record)

    try:
        write_record(record)
        write_files(record.machine)
        daemons.Starter(record.machine, save).start_all()
    except BaseException:
        log.warning("the start failed; stopping all daemons and removing the folder")
        remove(record)
        raise
    log.info(f"the cluster {record.label} is up after {time.monotonic() - start_s:.1f} s")


def write_files(machine: OneMachine) -> None:
    """Write all files that the daemons read into the cluster's empty folder."""
    for folder in (machine.munge, machine.state, machine.spool, machine.logs, machine.slice_files[0].parent):
        folder.mkdir(mode=0o755)
    for path in machine.slice_files:
        path.symlink_to(os.devnull)
    if machine.proctrack is Proctrack.CGROUP and (reason := cgroups.make_group(machine, "freezer")):
        raise ClusterError(f"--proctrack cgroup: {reason}")
    if reason := cgroups.make_group(machine, "memory"):
        log.warning(f"memory limits of jobs are not enforced: {reason}")
    limits_memory = not reason
    if limits_memory or machine.proctrack is Proctrack.CGROUP:
        _write(machine.cgroup_conf, cgroup_conf_text(machine, limits_memory=limits_memory), 0o644)
    _write(machine.slurm_conf, slurm_conf_text(machine, limits_memory=limits_memory), 0o644)
    _write(machine.gres_conf, gres_conf_text(machine), 0o644)
    _write(machine.slurmdbd_conf, slurmdbd_conf_text(machine), 0o600)
    _write(machine.database_setup, database_setup_text(machine), 0o600)
    _write(machine.munge_key, secrets.token_hex(64), 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """Create the file with its final mode, so that a secret is never readable by others, not even for a moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def remove(record: Record) -> None:
    """Stop daemons and jobs and remove all files. The record goes last, so that a failed `down` can be repeated."""
    cgroups.leave(record.machine)
    daemons.stop_all(record.machine, record.processes)
    cgroups.remove_groups(record.machine)
    remove_folder(record.machine.folder)
    record_path(record.machine.name).unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove the folder, trying for 2 s: an ending process may still write to it. Raises ClusterError if it stays."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise ClusterError(
        f"{folder} cannot be removed: a process still uses it. Stop that process, then run the same command again"
    )
