"""The only code that calls SLURM's commands: in an environment of their own, and again where the controller is busy."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from src import hints
from src.errors import ClusterError
from src.log import log

# A busy controller may take a minute for the answer to squeue.
_TIMEOUT_S = 180
_BUSY = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|timed out)|Communication connection failure|try again"
    r"|Unexpected message received",
    re.I,
)
# What users set for themselves changes what the commands answer: SQUEUE_PARTITION hides jobs, SLURM_TIME_FORMAT turns
# times into words, SLURM_CLUSTERS asks another cluster. Inside a job, what the job was given would go to the jobs that
# it submits. Only what says where the cluster is may stay.
_SETTINGS = re.compile(r"(SLURMD?|SBATCH|SRUN|SQUEUE|SACCT|SINFO|SCONTROL|SCANCEL|SUBMITIT)_")
LOCATIONS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
# Linux takes at most 128 KiB in one argument of a command (MAX_ARG_STRLEN, execve(2)), and 2 MiB in all of them.
ARGUMENT_BYTES = 100_000
WAITS_S = (1, 2, 4, 8, 15)
# On a node, where nobody else would bring the task back: an hour, or as long as the task may live.
PATIENT_WAITS_S = (*WAITS_S, *[30] * 120)
_Answer = TypeVar("_Answer")


class BusyError(ClusterError):
    """The controller is busy or away. What it was asked to do may have been done."""


def retry(call: Callable[[], _Answer], waits_s: Iterable[float], *, announce: bool = False) -> _Answer:
    """What `call` returns; it is called again after each of `waits_s` seconds for as long as it raises BusyError.

    `announce`: log each retry.
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
        raise BusyError(f"{error}; the controller did not answer {len(waits) + 1} times, try again later") from None


def run_slurm(command: Sequence[str], waits_s: Iterable[float] = WAITS_S) -> str:
    """What the command prints. A controller that is busy or away is waited for.

    Raises ClusterError if the command is missing or refuses, BusyError if the controller stays away.
    """
    return retry(lambda: run_slurm_once(command), waits_s)


def run_slurm_once(command: Sequence[str]) -> str:
    """What the command prints. Raises BusyError if the controller does not answer, else ClusterError."""
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():
        raise ClusterError(f"SLURM_CONF: {conf} is not there; unset it, or start that cluster again: {_start_one()}")
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            list(command), env=_environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise ClusterError(
            f"{command[0]}: no such command; are you on a login node of the cluster? "
            f"(a cluster on this machine starts with: {_start_one()})"
        ) from None
    except OSError as error:
        raise not_executable(command[0], error) from None
    except subprocess.TimeoutExpired:
        raise BusyError(f"{command[0]}: no answer in {_TIMEOUT_S} s") from None
    took_s = time.monotonic() - began_s
    log.debug("%s: exit code %d after %.2f s", shlex.join(command), done.returncode, took_s)
    if done.returncode == 0:
        return done.stdout
    problem = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    raise refusal(f"{command[0]}: {_reason(problem)}")


def refusal(message: str) -> ClusterError:
    """A ClusterError with this message; BusyError if SLURM's words in it mean that the controller was busy."""
    return BusyError(message) if is_busy(message) else ClusterError(message)


def is_busy(words: str) -> bool:
    """Whether SLURM's words mean that the controller could not answer now."""
    return _BUSY.search(words) is not None


def not_executable(program: str, error: OSError) -> ClusterError:
    """What to raise where the system refuses to start a program that is there."""
    return ClusterError(
        f"{program}: cannot be executed: {error.strerror}. This machine's SLURM installation is broken; "
        "repair it, or load the site's SLURM module"
    )


def _environment() -> dict[str, str]:
    """This process's environment without its settings for SLURM's commands and its own job."""
    return {name: value for name, value in os.environ.items() if name in LOCATIONS or not _SETTINGS.match(name)}


def _reason(problem: str) -> str:
    """SLURM's own words; of the many lines that a machine without a cluster gives, what they come to."""
    if "Could not establish a configuration source" in problem:
        return "no cluster is known on this machine (SLURM_CONF is not set, and there is no slurm.conf in its place)"
    return problem


def _start_one() -> str:
    return f'eval "$({hints.make("-s", "slurm-up")})"'
