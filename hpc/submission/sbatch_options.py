"""Which options of sbatch a profile may give in `sbatch`, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Mapping

Value = str | int | bool

_OURS = "Relay sets it"
_NOTHING = "sbatch would submit nothing"
_ELSEWHERE = "Relay asks the queue of one cluster; to use another one, set SLURM_CONF to its slurm.conf"
_GPU = "slice or gres of the profile asks for the one GPU of a task"
_ONE = "a task is one process on one node; leave it at 1"
# sbatch(1). Options after which the job is not what was planned, or cannot be followed.
_REFUSED: Mapping[str, str] = {
    "array": "max_parallel sets it",
    "cluster-constraint": _ELSEWHERE,
    "clusters": _ELSEWHERE,
    "error": _OURS,
    "gid": _OURS,
    "gpus": _GPU,
    "gpus-per-node": _GPU,
    "gpus-per-socket": _GPU,
    "gpus-per-task": _GPU,
    "help": _NOTHING,
    "job-name": _OURS,
    "nodes": _ONE,
    "ntasks": _ONE,
    "ntasks-per-core": _ONE,
    "ntasks-per-gpu": _ONE,
    "ntasks-per-node": _ONE,
    "ntasks-per-socket": _ONE,
    "open-mode": _OURS,
    "output": _OURS,
    "parsable": _OURS,
    "signal": "signal_lead_s sets it",
    "test-only": _NOTHING,
    "tres-per-job": _GPU,
    "tres-per-task": _GPU,
    "uid": _OURS,
    "usage": _NOTHING,
    "version": _NOTHING,
    "wait": "a launch would wait until its jobs are over",
    "wrap": _OURS,
}


def _why_refused(option: str, value: Value) -> str:
    """Why a profile may not give this option (its long name) this value; "" if it may."""
    if value is False or (_REFUSED.get(option) == _ONE and str(value) == "1"):
        return ""
    return _REFUSED.get(option, "")


def problems(options: Mapping[str, Value], given: Mapping[str, str]) -> list[str]:
    """What is wrong with a profile's `sbatch`; `given`: the options that its fields set -> the field."""
    found = []
    for key, value in options.items():
        option = key.replace("_", "-")
        # getopt_long(3) takes any prefix that only one option has.
        longer = [name for name in {*_REFUSED, *given} if name.startswith(option) and name != option]
        meant = min(longer, key=len, default="")
        if not re.fullmatch("[a-z][a-z0-9-]+", option):
            found.append(f"{key}: give the long name of an option of sbatch, without dashes before it")
        elif reason := _why_refused(option, value):
            found.append(f"{key}: {reason}; remove it from sbatch")
        elif option in given:
            found.append(f"{key} (set by {given[option]}): given twice; remove it from sbatch")
        elif meant and option not in _REFUSED:
            why = _REFUSED.get(meant) or f"set by {given[meant]}"
            found.append(f"{key}: stands for {meant}: {why}; remove it from sbatch")
        elif isinstance(value, str) and not value.isprintable():
            found.append(f"{key}: an sbatch option must be one line of printable characters")
        elif option in ("mem-per-cpu", "mem-per-gpu") and "mem" in given:
            found.append(f"{key}: sbatch takes one option for the memory; set mem_gb to null beside it")
    return found


# Options whose input variable of sbatch(1) has another name.
_VARIABLES = {"array-inx": "array", "mem-per-node": "mem", "req-switch": "switches", "timelimit": "time"}


def ignored_variables(environment: Mapping[str, str], fields: Mapping[str, str]) -> str:
    """Which variables ask for something of sbatch, which it does not get from Relay, and what does the same; "" if
    there are none. `fields`: sbatch's long name -> the profile's field.
    """
    found = []
    for name in sorted(environment):
        if name.startswith("SBATCH_") or name == "SLURM_CLUSTERS":
            option = name.partition("_")[2].lower().replace("_", "-")
            option = _VARIABLES.get(option, option)
            instead = f"in the profile: {fields.get(option) or f'sbatch: {{{option}: ...}}'}"
            found.append(f"{name}={environment[name]} ({_REFUSED.get(option) or instead})")
    return f"ignored, since the profile alone decides: {'; '.join(found)}" if found else ""
