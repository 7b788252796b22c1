"""What has to be installed: the programs that a cluster runs, and the Debian packages that bring them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src import hints
from src.errors import ClusterError
from src.log import log

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "munge",
    "mariadb-server",
)
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
POLICY = Path("/usr/sbin/policy-rc.d")


def check_installed() -> None:
    """Raises ClusterError that names every program which is missing."""
    missing = [name for name in PROGRAMS if _which(name) is None]
    if missing:
        raise ClusterError(f"not installed: {', '.join(missing)}. Try: {hints.python('hpc.one_machine', 'install')}")


def _which(name: str) -> str | None:
    """/usr/sbin is looked at too, which the PATH of an ordinary user lacks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def find_program(name: str) -> str:
    """Its whole path. Raises ClusterError if it is not installed."""
    found = _which(name)
    if found is None:
        raise ClusterError(f"not installed: {name}. Try: {hints.python('hpc.one_machine', 'install')}")
    return found


def missing_packages() -> list[str]:
    """The packages that dpkg does not know as installed. Raises ClusterError if there is no dpkg."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise ClusterError(
            "install works on Debian and its relatives only: there is no apt-get here. "
            "Install slurmctld, slurmd, slurmdbd, munge and MariaDB in this system's way, then try: "
            f"{hints.python('hpc.one_machine', 'up')}"
        )
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *PACKAGES]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in PACKAGES if f"installed {package}" not in known]


def install() -> None:
    """Installs what is missing. Raises ClusterError without apt, without root, or when apt-get fails."""
    missing = missing_packages()
    if not missing:
        log.info("everything is installed already")
        return
    if os.geteuid() != 0:
        raise ClusterError(f"install needs root. Try: sudo {sys.executable} -m hpc.one_machine install")
    start_s = time.monotonic()
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            log.info(f"apt-get {' '.join(arguments)}")
            ended = subprocess.run(
                ["apt-get", "-q", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            )
            if ended.returncode:
                raise ClusterError(f"apt-get {arguments[0]} ended with {ended.returncode}; its message is above")
    log.info(f"installed in {time.monotonic() - start_s:.0f} s")


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian's packages start their services unless this policy file forbids it; one that is there already is kept."""
    try:
        descriptor = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        log.info(f"{POLICY} exists and decides whether the packages start their services")
        yield
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        POLICY.unlink()
