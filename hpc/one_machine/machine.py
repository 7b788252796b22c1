"""One cluster on one machine: its name, ports and nodes, and the path of each of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from relay.errors import ClusterError

UNIX_SOCKET_LIMIT = 107
"""The longest path of a unix socket in bytes: `sun_path` has 108, and the last one is zero (unix(7))."""

LONGEST_STEP_SOCKET = "node99_99999999.4294967291"
"""slurmstepd opens a socket `<node>_<job>.<step>` in the spool folder of its node. The batch step has this number."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")


def check_name(name: str) -> None:
    """Raise ClusterError if the name cannot be part of file names and of the accounting database's table names."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"--name {name!r}: use a lower-case letter followed by up to 19 of a-z, 0-9 and _")


class Proctrack(StrEnum):
    """How SLURM finds the processes of a step: the children of its daemon and theirs, or the members of a cgroup."""

    LINUXPROC = "linuxproc"
    CGROUP = "cgroup"


@dataclass(frozen=True)
class Ports:
    """TCP ports of one cluster; `slurmd` has one for each node."""

    mariadb: int
    slurmdbd: int
    slurmctld: int
    slurmd: tuple[int, ...]


@dataclass(frozen=True)
class OneMachine:
    """One cluster: its folder, user and ports, and the hardware that its nodes claim to have.

    Raises ClusterError if SLURM cannot work with the name, folder or number of nodes.
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
    proctrack: Proctrack = Proctrack.LINUXPROC
    grace_time_s: int = 20
    cpus_per_node: int = 8
    mem_per_node_mb: int = 64000
    slices_per_node: int = 7
    slice_type: str = "1g.12gb"

    def __post_init__(self) -> None:
        check_name(self.name)
        if re.search(r"[^A-Za-z0-9_./+-]", str(self.folder)) or not self.folder.is_absolute():
            raise ClusterError(f"--dir {self.folder}: use an absolute path of letters, digits and any of _ . / + -")
        if not 1 <= len(self.ports.slurmd) <= 99:
            raise ClusterError(f"--nodes {len(self.ports.slurmd)}: a cluster has 1 to 99 nodes")
        longest = len(str(self.spool / "node99" / LONGEST_STEP_SOCKET))
        if longest > UNIX_SOCKET_LIMIT:
            raise ClusterError(
                f"--dir {self.folder}: too long by {longest - UNIX_SOCKET_LIMIT} characters. SLURM creates sockets "
                f"there, and Linux limits their paths to {UNIX_SOCKET_LIMIT} bytes. Choose a folder in /tmp"
            )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, node1 first."""
        return tuple(f"node{number}" for number in range(1, len(self.ports.slurmd) + 1))

    @property
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF points to."""
        return self.folder / "slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """slurmdbd looks for this file beside slurm.conf and nowhere else."""
        return self.folder / "slurmdbd.conf"

    @property
    def gres_conf(self) -> Path:
        """SLURM looks for this file beside slurm.conf."""
        return self.folder / "gres.conf"

    @property
    def cgroup_conf(self) -> Path:
        """SLURM looks for this file beside slurm.conf."""
        return self.folder / "cgroup.conf"

    @property
    def cgroup(self) -> Path:
        """The cgroup mount point that SLURM is told. It holds links to this cluster's own groups."""
        return self.folder / "cgroup"

    @property
    def munge(self) -> Path:
        """The folder of munged."""
        return self.folder / "munge"

    @property
    def munge_socket(self) -> Path:
        """The socket of this cluster's munged, used instead of the system's."""
        return self.munge / "socket"

    @property
    def munge_key(self) -> Path:
        """The secret key: whoever reads it can act as any user of the cluster."""
        return self.munge / "key"

    @property
    def database(self) -> Path:
        """The data folder of MariaDB."""
        return self.folder / "db"

    @property
    def database_setup(self) -> Path:
        """SQL that MariaDB runs at every start. It contains the password."""
        return self.folder / "db.sql"

    @property
    def state(self) -> Path:
        """Where slurmctld saves jobs and nodes."""
        return self.folder / "state"

    @property
    def spool(self) -> Path:
        """One folder per node, in which slurmd keeps job scripts and the sockets of steps."""
        return self.folder / "spool"

    @property
    def logs(self) -> Path:
        """The log of each daemon, and its output before it opened the log."""
        return self.folder / "log"

    @property
    def slice_files(self) -> tuple[Path, ...]:
        """Stand-ins for GPU devices, links to /dev/null.

        SLURM sets CUDA_VISIBLE_DEVICES, to the number at the end of the name, only for character devices.
        """
        return tuple(self.folder / "slices" / f"mig{number}" for number in range(self.slices_per_node))
