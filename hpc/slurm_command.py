"""The only code that runs SLURM's commands: in a clean environment, and again if the controller is busy."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from relay import hints
from relay.errors import ClusterError
from relay.log import log

# A busy controller may need a minute to answer squeue.
_TIMEOUT_S = 180
_BUSY = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|timed out)|Communication connection failure|try again"
    r"|Unexpected message received",
    re.I,
)
# A user's own settings change the answers: SQUEUE_PARTITION hides jobs, SLURM_TIME_FORMAT turns times into words,
# SLURM_CLUSTERS asks another cluster. Inside a job, sbatch would pass the job's own allocation on to the jobs that it
# submits. So all such variables are removed, except those that say where the cluster is.
_SETTINGS = re.compile(r"(SLURMD?|SBATCH|SRUN|SQUEUE|SACCT|SINFO|SCONTROL|SCANCEL)_")
LOCATIONS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
# Linux takes at most 128 KiB in one argument of a command (MAX_ARG_STRLEN, execve(2)), and 2 MiB in all of them.
ARGUMENT_BYTES = 100_000
WAITS_S = (1, 2, 4, 8, 15)
# For a requeue from the node, which no one else would do: one hour, or as long as the task may live.
PATIENT_WAITS_S = (*WAITS_S, *[30] * 120)
_Answer = TypeVar("_Answer")


class BusyError(ClusterError):
    """The controller did not answer. It may still have done what it was asked to do."""


class EndedBySignalError(ClusterError):
    """The command was ended by a signal. It may have done what it was asked to do."""


def retry(call: Callable[[], _Answer], waits_s: Iterable[float], *, announce: bool = False) -> _Answer:
    """Return what `call` returns. As long as it raises BusyError, call it again, after each wait in `waits_s` seconds.

    `announce`: log each retry. Raises BusyError if the last call does.
    """
    waits = list(waits_s)
    for wait_s in waits:
        try:
            return call()
        except BusyError as error:
            if announce:
                log.warning(f"{error}; trying again in {wait_s} s")
        time.sleep(wait_s)
    try:
        return call()
    except BusyError as error:
        if not waits:
            raise
        raise BusyError(f"{error}; the controller did not answer {len(waits) + 1} times; try again later") from None


def run_slurm(command: Sequence[str], waits_s: Iterable[float] = WAITS_S) -> str:
    """Run a SLURM command and return what it prints. If the controller does not answer, retry after `waits_s` seconds.

    Raises ClusterError if the command is missing or SLURM refuses, BusyError if the controller does not answer.
    """
    return retry(lambda: run_slurm_once(command), waits_s)


def run_slurm_once(command: Sequence[str]) -> str:
    """Run a SLURM command once and return what it prints. Raises as `run_slurm` does."""
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():
        raise ClusterError(f"SLURM_CONF: {conf} is not there; unset it, or start that cluster again: {_start_one()}")
    began_s = time.monotonic()
    try:
        # A site's own names and messages may be in any encoding: a byte that is not UTF-8 must not lose an answer.
        done = subprocess.run(
            list(command),
            env=_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(
            f"{command[0]}: no such command; are you on a login node of the cluster? "
            f"To start a SLURM on this machine: {_start_one()}"
        ) from None
    except OSError as error:
        raise ClusterError(
            f"{command[0]}: cannot be executed: {error.strerror}. This machine's SLURM installation is broken; "
            "fix it, or load the site's SLURM module"
        ) from None
    except subprocess.TimeoutExpired:
        raise BusyError(f"{command[0]}: no answer in {_TIMEOUT_S} s") from None
    took_s = time.monotonic() - began_s
    log.debug("%s: exit code %d after %.2f s", shlex.join(command), done.returncode, took_s)
    if done.returncode == 0:
        return done.stdout
    problem = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    reason = _reason(problem)
    message = reason if reason.startswith(f"{command[0]}: ") else f"{command[0]}: {reason}"
    if _BUSY.search(message):
        raise BusyError(message)
    raise EndedBySignalError(message) if done.returncode < 0 else ClusterError(message)


def _environment() -> dict[str, str]:
    """The environment of this process without the variables that change what SLURM's commands do."""
    return {name: value for name, value in os.environ.items() if name in LOCATIONS or not _SETTINGS.match(name)}


def _reason(problem: str) -> str:
    """SLURM's own message; one sentence in place of the many lines that it prints on a machine without a cluster."""
    if "Could not establish a configuration source" in problem:
        return "no cluster is known on this machine (SLURM_CONF is not set, and no slurm.conf is in the default place)"
    return problem


def _start_one() -> str:
    return f'eval "$({hints.make("-s", "slurm-up")})"'
