"""One cluster on one machine: its name, ports and nodes, and the path of each of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from src.errors import ClusterError

UNIX_SOCKET_LIMIT = 107
"""Longest path in bytes that Linux takes for a unix socket (`sun_path` has 108, the last one is zero)."""

LONGEST_STEP_SOCKET = "node99_99999999.4294967291"
"""slurmstepd opens a socket `<node>_<job>.<step>` in its node's spool folder; a batch step has the long number."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")


def check_name(name: str) -> None:
    """The name goes into file names and table names. Raises ClusterError."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"--name {name!r}: give a small letter followed by up to 19 of a-z, 0-9 and _")


@dataclass(frozen=True)
class Ports:
    """TCP ports of one cluster; one slurmd per node."""

    mariadb: int
    slurmdbd: int
    slurmctld: int
    slurmd: tuple[int, ...]


@dataclass(frozen=True)
class OneMachine:
    """One cluster: where it lives, as whom it runs, and what its nodes claim to have.

    Raises ClusterError for a name, folder or number of nodes that SLURM could not work with.
    """

    name: str
    folder: Path
    host: str
    user: str
    ports: Ports
    db_password: str
    first_job_id: int = 1
    preempt_user_signal: bool = True
    requeue_wait_s: int = 15
    grace_time_s: int = 20
    cpus_per_node: int = 8
    mem_per_node_mb: int = 64000
    slices_per_node: int = 7
    slice_type: str = "1g.12gb"

    def __post_init__(self) -> None:
        check_name(self.name)
        if re.search(r"[^A-Za-z0-9_./+-]", str(self.folder)) or not self.folder.is_absolute():
            raise ClusterError(f"--dir {self.folder}: give an absolute path of letters, digits and any of _ . / + -")
        if not 1 <= len(self.ports.slurmd) <= 99:
            raise ClusterError(f"--nodes {len(self.ports.slurmd)}: a cluster has 1 to 99 nodes")
        longest = len(str(self.spool / "node99" / LONGEST_STEP_SOCKET))
        if longest > UNIX_SOCKET_LIMIT:
            raise ClusterError(
                f"--dir {self.folder}: too long by {longest - UNIX_SOCKET_LIMIT} characters, since Linux allows only "
                f"{UNIX_SOCKET_LIMIT} in the path of a unix socket and SLURM makes some in there. Try a folder in /tmp"
            )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, node1 first."""
        return tuple(f"node{number}" for number in range(1, len(self.ports.slurmd) + 1))

    @property
    def slurm_conf(self) -> Path:
        """What SLURM_CONF has to say."""
        return self.folder / "slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """Looked for by slurmdbd beside slurm.conf and nowhere else."""
        return self.folder / "slurmdbd.conf"

    @property
    def gres_conf(self) -> Path:
        """Looked for by SLURM beside slurm.conf."""
        return self.folder / "gres.conf"

    @property
    def cgroup_conf(self) -> Path:
        """Looked for by SLURM beside slurm.conf."""
        return self.folder / "cgroup.conf"

    @property
    def cgroup(self) -> Path:
        """What SLURM takes for the place where cgroups are mounted; it holds a link to this cluster's own group."""
        return self.folder / "cgroup"

    @property
    def munge(self) -> Path:
        """munged's own folder."""
        return self.folder / "munge"

    @property
    def munge_socket(self) -> Path:
        """Where SLURM finds munged, in place of the one of the system."""
        return self.munge / "socket"

    @property
    def munge_key(self) -> Path:
        """A secret: whoever reads it can act as any user of the cluster."""
        return self.munge / "key"

    @property
    def database(self) -> Path:
        """MariaDB's data folder."""
        return self.folder / "db"

    @property
    def database_setup(self) -> Path:
        """SQL that MariaDB runs when it starts; holds the password."""
        return self.folder / "db.sql"

    @property
    def state(self) -> Path:
        """Where slurmctld saves jobs and nodes."""
        return self.folder / "state"

    @property
    def spool(self) -> Path:
        """A folder per node for slurmd: job scripts and the steps' sockets."""
        return self.folder / "spool"

    @property
    def logs(self) -> Path:
        """One log per daemon, and what it printed before it had one."""
        return self.folder / "log"

    @property
    def slice_files(self) -> tuple[Path, ...]:
        """Links to a character device, without which SLURM sets no CUDA_VISIBLE_DEVICES (the number at the end)."""
        return tuple(self.folder / "slices" / f"mig{number}" for number in range(self.slices_per_node))
