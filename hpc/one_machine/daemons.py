"""The daemons of one cluster: started in order and waited for, stopped in the reverse order, found again by pid.

A process is known by its pid together with the moment when it started, so that a pid which the kernel gave to somebody
else meanwhile is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.one_machine.settings import (
    OneMachine,
    OneMachineError,
    database_setup_text,
    gres_conf_text,
    slurm_conf_text,
    slurmdbd_conf_text,
)

READY_TIMEOUT_S = 90.0
STOP_PATIENCE_S = 5.0  # a controller with a job that is just ending takes 15 s, for a state that nobody needs
KILL_TIMEOUT_S = 15.0
JOB_GRACE_S = 2.0
POLL_S = 0.05
LOG_TAIL_LINES = 15
PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sinfo",
    "sbatch",
    "sacctmgr",
)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Report = Callable[[str], None]


class StartError(OneMachineError):
    """A daemon ended or did not answer; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one with the same pid by `start_ticks` (clock ticks since boot)."""

    label: str
    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """False too for a process that ended and still has its pid because nobody asked for its exit code."""
        return start_ticks(self.pid) == self.start_ticks

    def send(self, signal_number: signal.Signals) -> None:
        """Does nothing if the process is gone, whoever has its pid now."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)


def check_installed() -> None:
    """Raises OneMachineError that names every program which is missing."""
    missing = [name for name in PROGRAMS if _which(name) is None]
    if missing:
        raise OneMachineError(f"not installed: {', '.join(missing)}. Try: python -m hpc.one_machine install")


def _which(name: str) -> str | None:
    """/usr/sbin is looked at too, which the PATH of an ordinary user lacks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _program(name: str) -> str:
    found = _which(name)
    if found is None:
        raise OneMachineError(f"not installed: {name}. Try: python -m hpc.one_machine install")
    return found


# --- what /proc says -------------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, parent, ...); empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def start_ticks(pid: int) -> int | None:
    """When a living process started; None if it is gone, or dead and only waiting for its parent to notice."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def job_processes(machine: OneMachine) -> list[Process]:
    """slurmstepd's of this cluster, what descends from them, and what a job left behind when its step was gone.

    Nothing is concluded from a process's name alone. A slurmstepd belongs to this cluster if it holds a socket in the
    spool folder of one of its nodes, an orphan if SLURM put it on such a node (SLURMD_NODENAME, which no user's shell
    has) with this very slurm.conf.
    """
    sockets = _spool_sockets(machine)
    roots = [pid for pid in _pids() if _is_step_daemon(pid, sockets) or _is_marked(machine, pid)]
    return _living("job", set(roots) | _descendants(roots))


def _descendants(roots: Iterable[int]) -> set[int]:
    parents = {pid: _stat(pid)[1:2] for pid in _pids()}
    found: set[int] = set()
    families = {str(pid) for pid in roots}
    while more := {pid for pid, parent in parents.items() if parent and parent[0] in families and pid not in found}:
        found |= more
        families = {str(pid) for pid in more}
    return found


def _living(label: str, pids: Iterable[int]) -> list[Process]:
    """Never this very process: somebody may type `down` inside a job."""
    return [
        Process(label, pid, ticks)
        for pid in sorted(set(pids) - {os.getpid()})
        if (ticks := start_ticks(pid)) is not None
    ]


def _spool_sockets(machine: OneMachine) -> set[str]:
    """`socket:[INODE]` of each unix socket that is bound in this cluster's spool, as /proc/PID/fd shows it."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()]
    return {f"socket:[{row[6]}]" for row in rows if len(row) == 8 and row[7].startswith(f"{machine.spool}/")}


def _is_step_daemon(pid: int, sockets: set[str]) -> bool:
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != "slurmstepd":
            return False
        return any(str(entry.readlink()) in sockets for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it is gone, or somebody else's
        return False


def _is_marked(machine: OneMachine, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    nodes = {f"SLURMD_NODENAME={node}".encode() for node in machine.nodes}
    return f"SLURM_CONF={machine.slurm_conf}".encode() in environment and not nodes.isdisjoint(environment)


# --- start -----------------------------------------------------------------------------------------------------------


def write_files(machine: OneMachine) -> None:
    """Fills the folder, which exists and is empty, with all that the daemons read."""
    for folder in (machine.munge, machine.state, machine.spool, machine.logs, machine.slice_files[0].parent):
        folder.mkdir(mode=0o755)
    for path in machine.slice_files:
        path.symlink_to(os.devnull)
    _write(machine.slurm_conf, slurm_conf_text(machine), 0o644)
    _write(machine.gres_conf, gres_conf_text(machine), 0o644)
    _write(machine.slurmdbd_conf, slurmdbd_conf_text(machine), 0o600)
    _write(machine.database_setup, database_setup_text(machine), 0o600)
    _write(machine.munge_key, secrets.token_hex(64), 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """A secret must not be readable even for a moment, so the file is made with its final mode."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


class Starter:
    """Starts the daemons of one machine one after the other and reports each process as soon as it exists."""

    def __init__(self, machine: OneMachine, report: Report, started: Callable[[Process], None]) -> None:
        self.machine = machine
        self.report = report
        self.started = started
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Returns when every node is idle. Raises StartError when a daemon ends or stays silent; others still run."""
        machine = self.machine
        self.report("starting munge")
        self._start("munged", _munged(machine))
        hello = ["munge", f"--socket={machine.munge_socket}", "--no-input"]
        self._wait("munged", lambda: ask(machine, hello) is not None)
        self.report("starting MariaDB")
        self._make_database()
        self._start("mariadbd", _mariadbd(machine))
        self._wait("mariadbd", lambda: _listens(machine.ports.mariadb))
        self.report("starting slurmdbd")
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self._wait("slurmdbd", lambda: _listens(machine.ports.slurmdbd))
        if ask(machine, ["sacctmgr", "-i", "add", "cluster", machine.name]) is None:
            raise StartError(f"slurmdbd does not take the cluster.{_tail(_output(machine, 'slurmdbd'))}")
        self.report("starting slurmctld")
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(machine.slurm_conf)])
        self._wait("slurmctld", lambda: _listens(machine.ports.slurmctld))
        self._wait("slurmctld", lambda: ask(machine, ["scontrol", "show", "node"]) is not None)
        self.report(f"starting slurmd of {', '.join(machine.nodes)}")
        for node in machine.nodes:
            self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node, "-f", str(machine.slurm_conf)])
        self._wait("slurmd-node1", lambda: idle_nodes(machine) == set(machine.nodes))

    def _make_database(self) -> None:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self.machine.database}", "--skip-test-db"]
        install += [f"--user={self.machine.user}", "--auth-root-authentication-method=socket"]
        log = self.machine.logs / "mariadb-install-db.log"
        with log.open("wb") as output:
            command = [_program(install[0]), *install[1:]]
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            returncode = child.wait()
        except BaseException:  # the script has a mariadbd of its own, which would go on writing
            os.killpg(child.pid, signal.SIGKILL)
            raise
        if returncode:
            raise StartError(f"{install[0]} ended with {returncode}.{_tail(log)}")

    def _start(self, label: str, command: Sequence[str]) -> None:
        """In a session of its own, so that it outlives the terminal."""
        with _output(self.machine, label).open("ab") as output:
            child = subprocess.Popen(
                [_program(command[0]), *command[1:]],
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
            self.started(Process(label, child.pid, ticks))

    def _wait(self, label: str, is_ready: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            self._fail_if_ended()
            if time.monotonic() > deadline_s:
                tail = _tail(_output(self.machine, label))
                raise StartError(f"{label} did not become ready within {READY_TIMEOUT_S:.0f} s.{tail}")
            time.sleep(POLL_S)

    def _fail_if_ended(self) -> None:
        for label, child in self.children.items():
            if child.poll() is not None:
                raise StartError(f"{label} ended with {child.returncode}.{_tail(_output(self.machine, label))}")


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


def _tail(log: Path) -> str:
    """The last lines of a log, as the end of a message."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        return ""
    return f" The end of {log.name}:\n" + "\n".join(f"    {line}" for line in lines)


def _daemon_environment(machine: OneMachine) -> dict[str, str]:
    """Little, so that a cluster behaves the same whoever starts it; a job gets its environment from sbatch."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".removeprefix(":")
    return kept | {"PATH": path, "SLURM_CONF": str(machine.slurm_conf)}


def ask(machine: OneMachine, command: Sequence[str]) -> str | None:
    """What a command of SLURM's prints, None if it fails or has not answered within 30 s."""
    try:
        ended = subprocess.run(
            [_program(command[0]), *command[1:]],
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
    answer = ask(machine, ["sinfo", "--noheader", "--Node", "--format=%N %T"]) or ""
    return {line.split()[0] for line in answer.splitlines() if line.endswith(" idle")}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# --- stop ------------------------------------------------------------------------------------------------------------


def stop_all(machine: OneMachine, daemons: Sequence[Process]) -> None:
    """Ends every daemon and every job of this cluster; returns when they are gone.

    The controller goes first, so that it neither requeues nor starts what is ended next; jobs outlive their slurmd and
    go after it; the database goes when nobody writes to it any more. Raises OneMachineError if a process stays.
    """
    alive = [daemon for daemon in daemons if daemon.is_alive()]
    helpers = _living("helper", _descendants(daemon.pid for daemon in alive))
    _stop([daemon for daemon in alive if daemon.label == "slurmctld"], STOP_PATIENCE_S)
    _stop([daemon for daemon in alive if daemon.label.startswith("slurmd-")], STOP_PATIENCE_S)
    _stop(job_processes(machine), JOB_GRACE_S)
    while jobs := job_processes(machine):  # started while the others ended; each round ends all that it sees
        _stop(jobs, 0)
    _stop(helpers, JOB_GRACE_S)
    for label in ("slurmdbd", "mariadbd", "munged"):
        _stop([daemon for daemon in alive if daemon.label == label], STOP_PATIENCE_S)


def _stop(processes: Sequence[Process], patience_s: float) -> None:
    """SIGTERM, then SIGKILL for those that are still there after `patience_s`."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for process in processes:
            process.send(number)
        deadline_s = time.monotonic() + wait_s
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    stayed = [f"{process.label} (pid {process.pid})" for process in processes if process.is_alive()]
    if stayed:
        raise OneMachineError(f"still running after SIGKILL: {', '.join(stayed)}. Try the same command again")
