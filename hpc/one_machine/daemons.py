"""The daemons of one cluster: started in order and waited for, and stopped in the reverse order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc.one_machine.machine import OneMachine
from hpc.one_machine.packages import SYSTEM_PATH, find_program
from hpc.one_machine.processes import POLL_S, Process, descendants, job_processes, living, start_ticks, stop
from src.errors import ClusterError
from src.log import log

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 5.0  # a controller with a job that is just ending takes 15 s, for a state that nobody needs
JOB_TIMEOUT_S = 2.0
LOG_TAIL_LINES = 15


class Starter:
    """Starts the daemons of one machine one after the other and reports each process as soon as it exists."""

    def __init__(self, machine: OneMachine, on_start: Callable[[Process], None]) -> None:
        self.machine = machine
        self.on_start = on_start
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Returns when every node is idle. Raises ClusterError when a daemon ends or stays silent; others still run."""
        machine = self.machine
        log.info("starting munge")
        self.start("munged")
        log.info("starting MariaDB")
        self._make_database()
        self.start("mariadbd")
        log.info("starting slurmdbd")
        self.start("slurmdbd")
        if query(machine, ["sacctmgr", "-i", "add", "cluster", machine.name]) is None:
            raise ClusterError(f"slurmdbd does not take the cluster.{_tail(_output(machine, 'slurmdbd'))}")
        log.info("starting slurmctld")
        self.start("slurmctld")
        log.info(f"starting slurmd of {', '.join(machine.nodes)}")
        for node in machine.nodes:
            self._start(f"slurmd-{node}")
        self._wait("slurmd-node1", lambda: idle_nodes(machine) == set(machine.nodes))

    def start(self, label: str) -> None:
        """Start one daemon, and return when it answers. Raises ClusterError when it ends or stays silent."""
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
        except BaseException:  # the script has a mariadbd of its own, which would go on writing
            os.killpg(child.pid, signal.SIGKILL)
            raise
        if returncode:
            raise ClusterError(f"{install[0]} ended with {returncode}.{_tail(log_file)}")

    def _start(self, label: str) -> None:
        """In a session of its own, so that it outlives the terminal."""
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
                raise ClusterError(f"{label} ended with {child.returncode}.{_tail(_output(self.machine, label))}")


def labels(machine: OneMachine) -> tuple[str, ...]:
    """The daemons of this machine, in the order in which they start."""
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
    """Small and without the waits for the disk that only matter for data worth keeping."""
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
    """The last lines of a log, as the end of a message."""
    try:
        lines = log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        return ""
    return f" The end of {log_file.name}:\n" + "\n".join(f"    {line}" for line in lines)


def _daemon_environment(machine: OneMachine) -> dict[str, str]:
    """Little, so that a cluster behaves the same whoever starts it; a job gets its environment from sbatch."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".removeprefix(":")
    return kept | {"PATH": path, "SLURM_CONF": str(machine.slurm_conf)}


def query(machine: OneMachine, command: Sequence[str]) -> str | None:
    """What a command of SLURM's prints, None if it fails or has not answered within 30 s."""
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
    """Nodes that take jobs and run none; empty while the controller does not answer."""
    answer = query(machine, ["sinfo", "--noheader", "--Node", "--format=%N %T"]) or ""
    return {line.split()[0] for line in answer.splitlines() if line.endswith(" idle")}


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stop_all(machine: OneMachine, daemons: Sequence[Process]) -> None:
    """Ends every daemon and every job of this cluster; returns when they are gone.

    The controller goes first, so that it neither requeues nor starts what is ended next; jobs outlive their slurmd and
    go after it; the database goes when nobody writes to it any more. Raises ClusterError if a process stays.
    """
    alive = [daemon for daemon in daemons if daemon.is_alive()]
    helpers = living("helper", descendants(daemon.pid for daemon in alive))
    stop([daemon for daemon in alive if daemon.label == "slurmctld"], STOP_TIMEOUT_S)
    stop([daemon for daemon in alive if daemon.label.startswith("slurmd-")], STOP_TIMEOUT_S)
    stop(job_processes(machine), JOB_TIMEOUT_S)
    while jobs := job_processes(machine):  # started while the others ended; each round ends all that it sees
        stop(jobs, 0)
    stop(helpers, JOB_TIMEOUT_S)
    for label in ("slurmdbd", "mariadbd", "munged"):
        stop([daemon for daemon in alive if daemon.label == label], STOP_TIMEOUT_S)
