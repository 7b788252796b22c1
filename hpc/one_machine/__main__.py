"""The commands: `python -m hpc.one_machine install | up | down | status | stop | start`.

Stdout is for the shell that evaluates it (`eval "$(python -m hpc.one_machine up)"`), everything else goes to stderr.
A problem that the user can mend ends with one message and exit code 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from hpc.one_machine.cluster import Request, down, start_daemon, status, stop_daemon, up
from hpc.one_machine.packages import install
from hpc.one_machine.progress import report
from hpc.one_machine.records import own_name
from hpc.one_machine.settings import OneMachineError
from src import hints


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {low} to {high}")
        return int(text)

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog=hints.python("hpc.one_machine"), description="A real SLURM on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install SLURM, munge and MariaDB with apt-get; needs root")
    commands.add_parser("status", help="list the clusters of this user")
    for command, text in (
        ("up", "start a cluster and print the line that points SLURM's commands at it"),
        ("down", "end a cluster with all its jobs and remove its folder"),
        ("stop", "stop one daemon of a running cluster, to see what an outage does"),
        ("start", "start a daemon that was stopped"),
    ):
        commands.add_parser(command, help=text).add_argument(
            "--name", default=own_name(), help="of the cluster; this clone's own, %(default)s, unless it is given"
        )
    for command in ("stop", "start"):
        commands.choices[command].add_argument("daemon", help="slurmctld, slurmdbd, mariadbd, munged or slurmd-node1")
    commands.choices["stop"].add_argument("--kill", action="store_true", help="with SIGKILL, as a power cut would")
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
            up(
                Request(
                    name=arguments.name,
                    folder=arguments.dir,
                    nodes=arguments.nodes,
                    preempt_user_signal=arguments.preempt_user_signal,
                    requeue_wait_s=arguments.requeue_wait_s,
                )
            )
        elif arguments.command == "down":
            down(arguments.name)
        elif arguments.command == "stop":
            stop_daemon(arguments.name, arguments.daemon, kill=arguments.kill)
        elif arguments.command == "start":
            start_daemon(arguments.name, arguments.daemon)
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
