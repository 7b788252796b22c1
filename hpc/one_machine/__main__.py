"""The commands: `python -m hpc.one_machine install | up | down | status`.

Stdout is for the shell that evaluates it (`eval "$(python -m hpc.one_machine up)"`), everything else goes to stderr.
A problem that the user can mend ends with one message and exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hpc.one_machine import daemons
from hpc.one_machine.daemons import Process
from hpc.one_machine.settings import OneMachine, OneMachineError, Ports, check_name

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "munge",
    "mariadb-server",
)
PORTS = range(20000, 32000)  # below those that the kernel gives to outgoing connections
POLICY = Path("/usr/sbin/policy-rc.d")


def report(line: str) -> None:
    """Progress and problems go to stderr."""
    print(line, file=sys.stderr, flush=True)


def missing_packages() -> list[str]:
    """The packages that dpkg does not know as installed. Raises OneMachineError where there is no dpkg."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise OneMachineError(
            "install works on Debian and its relatives only: there is no apt-get here. "
            "Install slurmctld, slurmd, slurmdbd, munge and MariaDB in this system's way, then try: "
            "python -m hpc.one_machine up"
        )
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *PACKAGES]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in PACKAGES if f"installed {package}" not in known]


def install() -> None:
    """Installs what is missing. Raises OneMachineError without apt, without root, or when apt-get fails."""
    missing = missing_packages()
    if not missing:
        report("everything is installed already")
        return
    if os.geteuid() != 0:
        raise OneMachineError("install needs root. Try: sudo python -m hpc.one_machine install")
    began_s = time.monotonic()
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            report(f"apt-get {' '.join(arguments)}")
            ended = subprocess.run(
                ["apt-get", "-q", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            )
            if ended.returncode:
                raise OneMachineError(f"apt-get {arguments[0]} ended with {ended.returncode}; its message is above")
    report(f"installed in {time.monotonic() - began_s:.0f} s")


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian's packages start their services unless this policy file forbids it; one that is there already is kept."""
    try:
        descriptor = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        report(f"{POLICY} exists and decides whether the packages start their services")
        yield
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        POLICY.unlink()


# --- which clusters there are ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Record:
    """What is known of a cluster, written down after each daemon's start, so that `down` finds even half of one."""

    machine: OneMachine
    processes: list[Process]

    def is_whole(self) -> bool:
        """Whether `up` came as far as to start every daemon: four, and one for each node."""
        return len(self.processes) == 4 + len(self.machine.nodes)

    def dead(self) -> list[str]:
        """The daemons that were started and run no more."""
        return [process.label for process in self.processes if not process.is_alive()]


def boot_id() -> str:
    """Differs after every reboot, when the pids that were written down mean nothing any more."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def records_folder() -> Path:
    """Made at need. Raises OneMachineError if somebody else made it: in /tmp anybody could."""
    folder = Path(tempfile.gettempdir()).resolve() / f"relay-slurm-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise OneMachineError(
            f"{folder} is not yours. Try with another folder: TMPDIR=... python -m hpc.one_machine ..."
        )
    return folder


def record_path(name: str) -> Path:
    """Outside the cluster's folder, so that `down --name` need not be told where that is."""
    return records_folder() / f"{name}.json"


def write_record(record: Record) -> None:
    """Replaced whole, readable by nobody else: it holds a password."""
    content = dataclasses.asdict(record) | {"boot_id": boot_id()}
    path = record_path(record.machine.name)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, default=str)
    fresh.replace(path)


def read_record(name: str) -> Record | None:
    """None if there is no such cluster; without processes if the machine was rebooted since."""
    path = record_path(name)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    ports = content["machine"].pop("ports")
    ports = Ports(**{**ports, "slurmd": tuple(ports["slurmd"])})
    folder = Path(content["machine"].pop("folder"))
    processes = [Process(**process) for process in content["processes"]] if content["boot_id"] == boot_id() else []
    return Record(OneMachine(**content["machine"], folder=folder, ports=ports), processes)


def all_records() -> list[Record]:
    """The clusters of this user, by name."""
    names = sorted(path.stem for path in records_folder().glob("*.json"))
    return [record for name in names if (record := read_record(name)) is not None]


@contextmanager
def only_one() -> Iterator[None]:
    """One `up` or `down` at a time, or two would choose the same free ports."""
    with (records_folder() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another up or down to finish")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def choose_ports(nodes: int) -> Ports:
    """Ports that nobody listens on and no other cluster of this user counts on. Raises OneMachineError if too few."""
    taken = {port for record in all_records() for port in _ports_of(record.machine.ports)}
    candidates = (port for port in random.sample(PORTS, len(PORTS)) if port not in taken and _is_free(port))
    found = [port for port, _ in zip(candidates, range(3 + nodes), strict=False)]
    if len(found) < 3 + nodes:
        raise OneMachineError(f"fewer than {3 + nodes} free ports between {PORTS.start} and {PORTS.stop}")
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


# --- up, down, status ------------------------------------------------------------------------------------------------


def up(arguments: argparse.Namespace) -> None:
    """Starts the cluster unless it runs; prints the line for the shell. Leaves nothing behind if it raises."""
    check_name(arguments.name)
    daemons.check_installed()
    with only_one():
        record = read_record(arguments.name)
        if record is not None and not record.is_whole():
            report(f"the cluster {arguments.name} was never finished or is from before a reboot; it is made anew")
            remove(record)
            record = None
        if record is not None and record.dead():
            raise OneMachineError(
                f"{', '.join(record.dead())} of the cluster {arguments.name} ended. "
                f"Its logs are in {record.machine.logs}. Try: python -m hpc.one_machine down --name {arguments.name}"
            )
        if record is None:
            record = Record(describe(arguments), [])
            bring_up(record)
    print(f"export SLURM_CONF={record.machine.slurm_conf}", flush=True)


def describe(arguments: argparse.Namespace) -> OneMachine:
    """A new cluster as the command line asks for it. Raises OneMachineError."""
    default = Path(tempfile.gettempdir()).resolve() / f"relay-slurm-{os.geteuid()}-{arguments.name}"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise OneMachineError(f"SLURM needs a user with a name, and uid {os.geteuid()} has none here") from None
    return OneMachine(
        name=arguments.name,
        folder=default if arguments.dir is None else arguments.dir.absolute(),
        host=socket.gethostname().partition(".")[0],
        user=user,
        ports=choose_ports(arguments.nodes),
        db_password=secrets.token_hex(16),
        first_job_id=int(time.time()) // 10 % 60_000_000
        + 1,  # so that a later cluster does not give the same ids again
        preempt_user_signal=arguments.preempt_user_signal,
        requeue_wait_s=arguments.requeue_wait_s,
    )


def bring_up(record: Record) -> None:
    """Whatever ends this early, Ctrl-C too, is followed by the end of every daemon that was started."""
    began_s = time.monotonic()
    try:
        record.machine.folder.mkdir(parents=True)
    except FileExistsError:
        raise OneMachineError(
            f"{record.machine.folder} exists already and is no cluster that is known. "
            "Try --dir with a folder that does not exist yet"
        ) from None

    def started(process: Process) -> None:
        record.processes.append(process)
        write_record(record)

    try:
        write_record(record)
        daemons.write_files(record.machine)
        daemons.Starter(record.machine, report, started).start_all()
    except BaseException:
        report("failed; removing what was started")
        remove(record)
        raise
    report(f"the cluster {record.machine.name} is up after {time.monotonic() - began_s:.1f} s")


def remove(record: Record) -> None:
    """The record goes last: while it is there, `down` can be asked again."""
    daemons.stop_all(record.machine, record.processes)
    remove_folder(record.machine.folder)
    record_path(record.machine.name).unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """A dying process may write for a moment longer. Raises OneMachineError if the folder stays."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise OneMachineError(f"{folder} cannot be removed. See who uses it, then try the same command again")


def down(arguments: argparse.Namespace) -> None:
    """Ends the cluster with its jobs and removes its folder; says so if there is none."""
    check_name(arguments.name)
    with only_one():
        record = read_record(arguments.name)
        if record is None:
            report(f"there is no cluster {arguments.name}")
            return
        began_s = time.monotonic()
        remove(record)
        report(f"the cluster {arguments.name} is down after {time.monotonic() - began_s:.1f} s")


def status() -> None:
    """One line per cluster on stdout."""
    records = all_records()
    if not records:
        report("there is no cluster. Try: python -m hpc.one_machine up")
    for record in records:
        print(f"{record.machine.name}  {health(record)}  SLURM_CONF={record.machine.slurm_conf}")


def health(record: Record) -> str:
    """In a few words; the controller is asked only where there is one, since asking in vain takes long."""
    if not record.is_whole():
        return "unfinished"
    if dead := record.dead():
        return f"not running: {', '.join(dead)}"
    return f"{len(daemons.idle_nodes(record.machine))} of {len(record.machine.nodes)} nodes idle"


# --- the command line ------------------------------------------------------------------------------------------------


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {low} to {high}")
        return int(text)

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m hpc.one_machine", description="A real SLURM on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install SLURM, munge and MariaDB with apt-get; needs root")
    commands.add_parser("status", help="list the clusters of this user")
    for command, text in (
        ("up", "start a cluster and print the line that points SLURM's commands at it"),
        ("down", "end a cluster with all its jobs and remove its folder"),
    ):
        commands.add_parser(command, help=text).add_argument("--name", default="relay")
    up_parser = commands.choices["up"]
    up_parser.add_argument("--dir", type=Path, help="a folder that does not exist yet; its path must be short")
    up_parser.add_argument("--nodes", type=_whole_number(1, 99), default=2)
    up_parser.add_argument(
        "--preempt-user-signal",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send a job's --signal when it is preempted; not every site does",
    )
    up_parser.add_argument(
        "--requeue-wait-s",
        type=_whole_number(5, 600),
        default=15,
        help="how long a requeued job waits; 120 s at most sites, 5 to 600 here",
    )
    return parser


def _end(signal_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal_number)


def main(words: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one message on stderr."""
    arguments = make_parser().parse_args(words)
    signal.signal(signal.SIGTERM, _end)
    try:
        if arguments.command == "install":
            install()
        elif arguments.command == "up":
            up(arguments)
        elif arguments.command == "down":
            down(arguments)
        else:
            status()
    except (OneMachineError, OSError) as error:
        report(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
