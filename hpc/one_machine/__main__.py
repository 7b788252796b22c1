"""The commands: `python -m hpc.one_machine install | up | down | status | stop | start`.

A shell evaluates stdout (`eval "$(python -m hpc.one_machine up)"`), so everything else goes to stderr.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from hpc.one_machine import cluster, packages
from hpc.one_machine.build import ClusterSpec
from hpc.one_machine.machine import Proctrack
from hpc.one_machine.records import own_name
from relay.cli import make_app, run_app

app = make_app(no_args_is_help=True, help="A real SLURM on one machine.")
NameOption = Annotated[str, typer.Option("--name", help="The cluster's name; by default this clone's own.")]
_OWN_NAME = own_name()
DaemonArgument = Annotated[str, typer.Argument(help="slurmctld, slurmdbd, mariadbd, munged or slurmd-node1")]


@app.command()
def install() -> None:
    """Install SLURM, munge and MariaDB with apt-get; needs root."""
    packages.install()


@app.command()
def up(
    name: NameOption = _OWN_NAME,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="A new folder for the cluster. Its path must be short: Linux limits the paths of sockets in it.",
        ),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=99)] = 2,
    preempt_user_signal: Annotated[
        bool,
        typer.Option(
            "--preempt-user-signal/--no-preempt-user-signal",
            help="Send a job's --signal when SLURM preempts it. Not every site does.",
        ),
    ] = True,
    requeue_wait_s: Annotated[
        int,
        typer.Option(
            "--requeue-wait-s",
            min=5,
            max=600,
            help="How long a requeued job waits before it may start again. SLURM's default is 120 s.",
        ),
    ] = 15,
    proctrack: Annotated[
        Proctrack,
        typer.Option(
            "--proctrack",
            help="How SLURM finds the processes of a step. cgroup needs the freezer of cgroups version 1, and root.",
        ),
    ] = Proctrack.LINUXPROC,
) -> None:
    """Start a cluster and print the line that points SLURM's commands at it."""
    cluster.up(ClusterSpec(name, folder, nodes, preempt_user_signal, requeue_wait_s, proctrack))


@app.command()
def down(name: NameOption = _OWN_NAME) -> None:
    """Stop a cluster and all its jobs, and remove its folder."""
    cluster.down(name)


@app.command()
def status() -> None:
    """List the clusters of this user."""
    cluster.status()


@app.command()
def stop(
    daemon: DaemonArgument,
    name: NameOption = _OWN_NAME,
    kill: Annotated[bool, typer.Option("--kill", help="Use SIGKILL, as in a power cut.")] = False,
) -> None:
    """Stop one daemon of a running cluster, to simulate an outage."""
    cluster.stop_daemon(name, daemon, kill=kill)


@app.command()
def start(daemon: DaemonArgument, name: NameOption = _OWN_NAME) -> None:
    """Start a daemon that was stopped."""
    cluster.start_daemon(name, daemon)


def _exit(signal_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal_number)


if __name__ == "__main__":
    # SystemExit unwinds `up`, which then stops the daemons that it has started.
    signal.signal(signal.SIGTERM, _exit)
    run_app(app)
