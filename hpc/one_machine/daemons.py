"""The daemons of one cluster: started in order, each one ready before the next, and stopped in a safe order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc.one_machine import cgroups
from hpc.one_machine.machine import OneMachine
from hpc.one_machine.packages import SYSTEM_PATH, find_program
from hpc.one_machine.processes import POLL_S, Process, job_processes, living, stop
from hpc.processes import descendants, start_ticks
from relay.errors import ClusterError
from relay.log import log

READY_TIMEOUT_S = 90.0
# Then SIGKILL. slurmctld takes 15 s if a job is just ending, to save a state that is deleted anyway.
STOP_TIMEOUT_S = 5.0
JOB_TIMEOUT_S = 2.0
LOG_TAIL_LINES = 15


class Starter:
    """Starts the daemons of one machine. Calls `on_start` with each process as soon as it exists."""

    def __init__(self, machine: OneMachine, on_start: Callable[[Process], None]) -> None:
        self.machine = machine
        self.on_start = on_start
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Start everything and return when every node is idle.

        Raises ClusterError if a daemon ends or does not become ready; the others keep running.
        """
        machine = self.machine
        log.info("starting munge")
        self.start("munged")
        log.info("starting MariaDB")
        self._make_database()
        self.start("mariadbd")
        log.info("starting slurmdbd")
        self.start("slurmdbd")
        if query(machine, ["sacctmgr", "-i", "add", "cluster", machine.name]) is None:
            raise ClusterError(f"slurmdbd refused to add the cluster.{_tail(_output(machine, 'slurmdbd'))}")
        log.info("starting slurmctld")
        self.start("slurmctld")
        log.info(f"starting slurmd of {', '.join(machine.nodes)}")
        for node in machine.nodes:
            self._start(f"slurmd-{node}")
        self._wait("slurmd-node1", lambda: idle_nodes(machine) == set(machine.nodes))

    def start(self, label: str) -> None:
        """Start one daemon and return when it answers. Raises ClusterError if it ends or does not become ready."""
        self._start(label)
        self._wait(label, lambda: _answers(self.machine, label))

    def _make_database(self) -> None:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self.machine.database}", "--skip-test-db"]
        install += [f"--user={self.machine.user}", "--auth-root-authentication-method=socket"]
        log_file = self.machine.logs / "mariadb-install-db.log"
        with log_file.open("wb") as output:
            command = [find_program(install[0]), *install[1:]]
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            returncode = child.wait()
        except BaseException:  # the script runs a mariadbd in its process group, which would keep writing
            os.killpg(child.pid, signal.SIGKILL)
            raise
        if returncode:
            raise ClusterError(f"{install[0]} ended with exit code {returncode}.{_tail(log_file)}")

    def _start(self, label: str) -> None:
        """Start a daemon in a session of its own, so that closing the terminal does not stop it."""
        command = _command(self.machine, label)
        with _output(self.machine, label).open("ab") as output:
            child = subprocess.Popen(
                [find_program(command[0]), *command[1:]],
                cwd=self.machine.folder,
                env=_daemon_environment(self.machine),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.children[label] = child
        ticks = start_ticks(child.pid)
        if ticks is not None:
            self.on_start(Process(label, child.pid, ticks))

    def _wait(self, label: str, is_ready: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            self._fail_if_ended()
            if time.monotonic() > deadline_s:
                tail = _tail(_output(self.machine, label))
                raise ClusterError(f"{label} did not become ready within {READY_TIMEOUT_S:.0f} s.{tail}")
            time.sleep(POLL_S)

    def _fail_if_ended(self) -> None:
        for label, child in self.children.items():
            if child.poll() is not None:
                raise ClusterError(
                    f"{label} ended with exit code {child.returncode}.{_tail(_output(self.machine, label))}"
                )


def labels(machine: OneMachine) -> tuple[str, ...]:
    """The daemons of this machine, in the order of their start."""
    return ("munged", "mariadbd", "slurmdbd", "slurmctld", *(f"slurmd-{node}" for node in machine.nodes))


def _command(machine: OneMachine, label: str) -> list[str]:
    if label.startswith("slurmd-"):
        return ["slurmd", "-D", "-N", label.removeprefix("slurmd-"), "-f", str(machine.slurm_conf)]
    return {
        "munged": _munged(machine),
        "mariadbd": _mariadbd(machine),
        "slurmdbd": ["slurmdbd", "-D"],
        "slurmctld": ["slurmctld", "-D", "-f", str(machine.slurm_conf)],
    }[label]


def _answers(machine: OneMachine, label: str) -> bool:
    if label == "munged":
        return query(machine, ["munge", f"--socket={machine.munge_socket}", "--no-input"]) is not None
    ports = machine.ports
    by_label = {"mariadbd": ports.mariadb, "slurmdbd": ports.slurmdbd, "slurmctld": ports.slurmctld}
    by_label |= {f"slurmd-{node}": port for node, port in zip(machine.nodes, ports.slurmd, strict=True)}
    if not _is_listening(by_label[label]):
        return False
    return label != "slurmctld" or query(machine, ["scontrol", "show", "node"]) is not None


def _munged(machine: OneMachine) -> list[str]:
    files = [f"--{name}-file={machine.munge}/{name}" for name in ("pid", "log", "seed")]
    files += [f"--key-file={machine.munge_key}", f"--socket={machine.munge_socket}"]
    return ["munged", "--foreground", "--force", *files]


def _mariadbd(machine: OneMachine) -> list[str]:
    """With little memory and without fsync at commits: the accounting of a trial cluster need not survive a crash."""
    return [
        "mariadbd",
        "--no-defaults",
        f"--user={machine.user}",
        f"--datadir={machine.database}",
        f"--socket={machine.database}/socket",
        f"--pid-file={machine.database}/pid",
        f"--init-file={machine.database_setup}",
        f"--port={machine.ports.mariadb}",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900",
    ]


def _output(machine: OneMachine, label: str) -> Path:
    return machine.logs / f"{label}.out"


def _tail(log_file: Path) -> str:
    """The last lines of a log, to append to a message."""
    try:
        lines = log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        return ""
    return f" The end of {log_file.name}:\n" + "\n".join(f"    {line}" for line in lines)


def _daemon_environment(machine: OneMachine) -> dict[str, str]:
    """Few variables, so that a cluster is the same whoever starts it. Jobs get their environment from sbatch."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".removeprefix(":")
    return kept | {"PATH": path, "SLURM_CONF": str(machine.slurm_conf)}


def query(machine: OneMachine, command: Sequence[str]) -> str | None:
    """The output of a SLURM command; None if it fails or takes longer than 30 s."""
    try:
        ended = subprocess.run(
            [find_program(command[0]), *command[1:]],
            env=_daemon_environment(machine),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return ended.stdout if ended.returncode == 0 else None


def idle_nodes(machine: OneMachine) -> set[str]:
    """The idle nodes; empty if the controller does not answer."""
    answer = query(machine, ["sinfo", "--noheader", "--Node", "--format=%N %T"]) or ""
    return {line.split()[0] for line in answer.splitlines() if line.endswith(" idle")}


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stop_all(machine: OneMachine, daemons: Sequence[Process]) -> None:
    """Stop every daemon and every job of this cluster, and return when they are gone.

    The controller stops first, so that it neither requeues nor starts jobs. Jobs outlive their slurmd, so they are
    stopped after it. The database stops last, when nothing writes to it. Raises ClusterError if a process stays.
    """
    alive = [daemon for daemon in daemons if daemon.is_alive()]
    helpers = living("helper", descendants(daemon.pid for daemon in alive))
    stop([daemon for daemon in alive if daemon.label == "slurmctld"], STOP_TIMEOUT_S)
    stop([daemon for daemon in alive if daemon.label.startswith("slurmd-")], STOP_TIMEOUT_S)
    cgroups.thaw(machine)
    stop(job_processes(machine), JOB_TIMEOUT_S)
    while jobs := job_processes(machine):  # steps that started meanwhile
        stop(jobs, 0)
    stop(helpers, JOB_TIMEOUT_S)
    for label in ("slurmdbd", "mariadbd", "munged"):
        stop([daemon for daemon in alive if daemon.label == label], STOP_TIMEOUT_S)
