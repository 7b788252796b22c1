"""The programs that a cluster needs, and how to install the Debian packages that contain them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay import hints
from relay.errors import ClusterError
from relay.log import log

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
    """Raise ClusterError with the names of all missing programs."""
    missing = [name for name in PROGRAMS if _which(name) is None]
    if missing:
        raise ClusterError(
            f"not installed: {', '.join(missing)}. To install it: {hints.python('hpc.one_machine', 'install')}"
        )


def _which(name: str) -> str | None:
    """Find a program, also in /usr/sbin, which is not on the PATH of an ordinary user."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def find_program(name: str) -> str:
    """The full path of a program. Raises ClusterError if it is not installed."""
    found = _which(name)
    if found is None:
        raise ClusterError(f"not installed: {name}. To install it: {hints.python('hpc.one_machine', 'install')}")
    return found


def missing_packages() -> list[str]:
    """The packages that are not installed according to dpkg. Raises ClusterError without dpkg or apt-get."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise ClusterError(
            "install needs apt-get (Debian, Ubuntu), which is not on this machine. "
            "Install slurmctld, slurmd, slurmdbd, munge and MariaDB with this system's package manager, then run: "
            f"{hints.python('hpc.one_machine', 'up')}"
        )
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *PACKAGES]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in PACKAGES if f"installed {package}" not in known]


def install() -> None:
    """Install the missing packages. Raises ClusterError without apt-get, without root, or if apt-get fails."""
    missing = missing_packages()
    if not missing:
        log.info("all packages are already installed")
        return
    if os.geteuid() != 0:
        raise ClusterError(f"install needs root: sudo {sys.executable} -m hpc.one_machine install")
    start_s = time.monotonic()
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            log.info(f"apt-get {' '.join(arguments)}")
            ended = subprocess.run(
                ["apt-get", "-q", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            )
            if ended.returncode:
                raise ClusterError(
                    f"apt-get {arguments[0]} ended with exit code {ended.returncode}; its message is above"
                )
    log.info(f"installed in {time.monotonic() - start_s:.0f} s")


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep Debian's packages from starting their services. An existing policy-rc.d is left as it is.

    invoke-rc.d starts no service if /usr/sbin/policy-rc.d exits with 101.
    """
    try:
        descriptor = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        log.info(f"{POLICY} already exists and decides whether packages start their services")
        yield
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        POLICY.unlink()
