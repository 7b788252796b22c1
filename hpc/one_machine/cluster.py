"""The commands: start a cluster, stop it, list clusters, and stop or start a single daemon."""

from __future__ import annotations

import signal
import time

from hpc.one_machine import daemons
from hpc.one_machine.build import ClusterSpec, make_machine, remove, start_cluster
from hpc.one_machine.machine import check_name
from hpc.one_machine.packages import check_installed
from hpc.one_machine.processes import Process, stop
from hpc.one_machine.records import (
    Record,
    all_records,
    lock_clusters,
    own_clone,
    read_record,
    write_record,
)
from relay import hints
from relay.errors import ClusterError
from relay.log import log

OUTAGE_TIMEOUT_S = 60.0  # a daemon that continues later needs time to save its state


def up(spec: ClusterSpec) -> None:
    """Start the cluster unless it runs, and print the line for the shell. If it raises, nothing is left behind."""
    check_name(spec.name)
    check_installed()
    with lock_clusters():
        record = read_record(spec.name)
        if record is not None and not record.is_complete():
            log.info(f"the cluster {record.label} is incomplete or from before a reboot; building it again")
            remove(record)
            record = None
        if record is not None and record.dead_daemons():
            end_it = hints.python("hpc.one_machine", "down", "--name", spec.name)
            raise ClusterError(
                f"{', '.join(record.dead_daemons())} of the cluster {record.label} stopped running. "
                f"The logs are in {record.machine.logs}. Remove the cluster with: {end_it}"
            )
        if record is None:
            record = Record(make_machine(spec), [], own_clone())
            start_cluster(record)
        else:
            log.info(f"the cluster {record.label} is already running")
    print(f"export SLURM_CONF={record.machine.slurm_conf}", flush=True)


def down(name: str) -> None:
    """Stop the cluster with its jobs and remove its folder. If there is no such cluster, name those that exist."""
    check_name(name)
    with lock_clusters():
        record = read_record(name)
        if record is None:
            names = ", ".join(other.label for other in all_records())
            others = f"; existing clusters: {names} (choose one with --name, or make NAME=)" if names else ""
            log.info(f"there is no cluster {name}{others}")
            return
        start_s = time.monotonic()
        remove(record)
        log.info(f"the cluster {record.label} is down after {time.monotonic() - start_s:.1f} s")


def stop_daemon(name: str, label: str, *, kill: bool) -> None:
    """Stop one daemon of a running cluster, to simulate an outage. `kill`: with SIGKILL, so that it saves nothing.

    Raises ClusterError if there is no such cluster or daemon.
    """
    with lock_clusters():
        record, position = _find_daemon(name, label)
        process = record.processes[position]
        if kill:
            process.send(signal.SIGKILL)
        stop([process], OUTAGE_TIMEOUT_S)
    log.info(f"{label} of {name} is stopped")


def start_daemon(name: str, label: str) -> None:
    """Start a stopped daemon and wait until it answers; leave a running one alone. Raises ClusterError if it fails."""
    with lock_clusters():
        record, position = _find_daemon(name, label)

        def save(process: Process) -> None:
            record.processes[position] = process
            write_record(record)

        if record.processes[position].is_alive():
            log.info(f"{label} of {name} is already running")
            return
        daemons.Starter(record.machine, save).start(label)
    log.info(f"{label} of {name} is running again")


def _find_daemon(name: str, label: str) -> tuple[Record, int]:
    record = read_record(name)
    if record is None or not record.is_complete():
        raise ClusterError(
            f"there is no running cluster {name}. To list all: {hints.python('hpc.one_machine', 'status')}"
        )
    found = [position for position, process in enumerate(record.processes) if process.label == label]
    if not found:
        raise ClusterError(
            f"{label}: not a daemon of the cluster {name}; choose one of {', '.join(daemons.labels(record.machine))}"
        )
    return record, found[0]


def status() -> None:
    """Print one line for each cluster."""
    records = all_records()
    if not records:
        log.info(f"there is no cluster. To start one: {hints.python('hpc.one_machine', 'up')}")
    for record in records:
        whose = f"  of {record.clone}" if record.clone else ""
        print(f"{record.machine.name}  {health(record)}  SLURM_CONF={record.machine.slurm_conf}{whose}")


def health(record: Record) -> str:
    """The state of a cluster in a few words. Queries SLURM only if all daemons run: a query without them takes long."""
    if not record.is_complete():
        return "unfinished"
    if dead := record.dead_daemons():
        return f"not running: {', '.join(dead)}"
    return f"{len(daemons.idle_nodes(record.machine))} of {len(record.machine.nodes)} nodes idle"
