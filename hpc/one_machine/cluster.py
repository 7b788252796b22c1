"""A whole cluster: described as it was asked for, brought up, looked at, and removed without a trace."""

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
from src import hints
from src.errors import ClusterError
from src.log import log

OUTAGE_TIMEOUT_S = 60.0  # a daemon that is to go on later writes down what it knows first


def up(spec: ClusterSpec) -> None:
    """Starts the cluster unless it runs; prints the line for the shell. Leaves nothing behind if it raises."""
    check_name(spec.name)
    check_installed()
    with lock_clusters():
        record = read_record(spec.name)
        if record is not None and not record.is_complete():
            log.info(f"the cluster {record.label} was never finished or is from before a reboot; it is made anew")
            remove(record)
            record = None
        if record is not None and record.dead_daemons():
            end_it = hints.python("hpc.one_machine", "down", "--name", spec.name)
            raise ClusterError(
                f"{', '.join(record.dead_daemons())} of the cluster {record.label} ended. "
                f"Its logs are in {record.machine.logs}. Try: {end_it}"
            )
        if record is None:
            record = Record(make_machine(spec), [], own_clone())
            start_cluster(record)
        else:
            log.info(f"the cluster {record.label} runs already")
    print(f"export SLURM_CONF={record.machine.slurm_conf}", flush=True)


def down(name: str) -> None:
    """Ends the cluster with its jobs and removes its folder; says so if there is none."""
    check_name(name)
    with lock_clusters():
        record = read_record(name)
        if record is None:
            names = ", ".join(other.label for other in all_records())
            others = f"; there are {names} (--name, or make NAME=)" if names else ""
            log.info(f"there is no cluster {name}{others}")
            return
        start_s = time.monotonic()
        remove(record)
        log.info(f"the cluster {record.label} is down after {time.monotonic() - start_s:.1f} s")


def stop_daemon(name: str, label: str, *, kill: bool) -> None:
    """End one daemon of a running cluster, to see what an outage of it does; `kill` leaves it no time for anything.

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
    """Start a daemon that ended, and wait until it answers; one that runs is left alone. Raises ClusterError."""
    with lock_clusters():
        record, position = _find_daemon(name, label)

        def save(process: Process) -> None:
            record.processes[position] = process
            write_record(record)

        if record.processes[position].is_alive():
            log.info(f"{label} of {name} runs already")
            return
        daemons.Starter(record.machine, save).start(label)
    log.info(f"{label} of {name} runs again")


def _find_daemon(name: str, label: str) -> tuple[Record, int]:
    record = read_record(name)
    if record is None or not record.is_complete():
        raise ClusterError(f"there is no running cluster {name}. Try: {hints.python('hpc.one_machine', 'status')}")
    found = [position for position, process in enumerate(record.processes) if process.label == label]
    if not found:
        raise ClusterError(
            f"{label}: no daemon of the cluster {name}; give one of {', '.join(daemons.labels(record.machine))}"
        )
    return record, found[0]


def status() -> None:
    """One line per cluster on stdout."""
    records = all_records()
    if not records:
        log.info(f"there is no cluster. Try: {hints.python('hpc.one_machine', 'up')}")
    for record in records:
        whose = f"  of {record.clone}" if record.clone else ""
        print(f"{record.machine.name}  {health(record)}  SLURM_CONF={record.machine.slurm_conf}{whose}")


def health(record: Record) -> str:
    """In a few words; the controller is asked only where there is one, since asking in vain takes long."""
    if not record.is_complete():
        return "unfinished"
    if dead := record.dead_daemons():
        return f"not running: {', '.join(dead)}"
    return f"{len(daemons.idle_nodes(record.machine))} of {len(record.machine.nodes)} nodes idle"
