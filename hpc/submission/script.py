"""The bash scripts that sbatch gets: its options, the profile's setup, and what is executed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpc.submission.profile import Profile
from relay.runs.code_snapshot import check_commands

Options = Mapping[str, str | int | bool]
# What a task ends with if it cannot begin its work. No run has failed then.
_NOT_STARTED = 3
# Without these, the check of the code would say that the code was changed.
_PATH_CHECK = (
    "type sha256sum find wc cut >/dev/null || { "
    'echo "error: setup: a tool is missing in PATH=$PATH; correct setup in the profile" >&2; '
    f"exit {_NOT_STARTED}; }}",
)


def script_text(options: Options, lines: Iterable[str]) -> str:
    """A script of these lines with sbatch's long options; one whose value is `false` is left out."""
    given = [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in sorted(options.items())
        if value is not False
    ]
    return "\n".join(["#!/bin/bash", *given, "", *lines, ""])


def log_options(folder: Path, *, array: bool) -> Options:
    """Where SLURM writes what a task prints, in all of its executions: below `70_3_0_log` for task 3 of job 70."""
    log = f"{folder}/{'%A_%a' if array else '%j'}_0_log"
    return {"output": f"{log}.out", "error": f"{log}.err", "open-mode": "append"}


def setup_lines(profile: Profile, code: Path) -> list[str]:
    """The profile's `setup`, then what every process of ours needs: the code, checked, and found before any other."""
    # After `setup`, which may change the folder and the variables.
    home = os.environ.get("PYTHONHOME")
    return [
        *_checked(profile.setup, ignored=profile.ignore_setup_errors),
        *(_PATH_CHECK if profile.setup else ()),
        *check_commands(code),
        # `module load` of another Python sets it, and this interpreter would look for its library there.
        f"export PYTHONHOME={shlex.quote(home)}" if home else "unset PYTHONHOME",
    ]


def _checked(setup: Sequence[str], *, ignored: bool) -> list[str]:
    """The lines, and that the first one that fails ends the script with its text as the last line of stderr."""
    if ignored or not setup:
        return list(setup)
    # Not `set -e`: functions such as `module` and files that are sourced fail inside without harm. bash calls the ERR
    # trap in files, too (BASH_SOURCE then has an entry more), but not in functions. EXIT catches `exit`, `set -u` and
    # errors of syntax. ERR is not called where `a` of `a && b` fails: the code of each line is looked at, too. But
    # `[ -f a ] && source a` is no failure.
    return [
        "relay_files=${#BASH_SOURCE[@]}",
        "relay_setup_failed() {",
        "    trap - ERR EXIT DEBUG",
        '    echo "error: setup: $relay_line: failed with exit code $1; correct setup in the profile, or set'
        ' ignore_setup_errors: true" >&2',
        f"    exit {_NOT_STARTED}",
        "}",
        "relay_check() {",
        '    case $relay_last in "[ "*|"[[ "*|"test "*) return 0;; esac',
        "    [ $1 = 0 ] || relay_setup_failed $1",
        "}",
        "relay_last=",
        "trap 'case $BASH_COMMAND in relay_*) ;; *) relay_last=$BASH_COMMAND;; esac' DEBUG",
        "trap 'relay_code=$?; [ ${#BASH_SOURCE[@]} -gt $relay_files ] || relay_setup_failed $relay_code' ERR",
        "trap 'relay_setup_failed $?' EXIT",
        *(
            text
            for line in setup
            for text in (
                f"relay_line={shlex.quote('; '.join(line.strip().splitlines()))}",
                line,
                "relay_check $?",
            )
        ),
        "trap - ERR EXIT DEBUG",
    ]


def task_environment(profile: Profile, gres: str | None, kill_wait_s: int = 30) -> list[str]:
    """The variables of a task, as shell lines."""
    # In the script and not in sbatch's environment: some sites submit with --export=NONE.
    count = profile.runs_per_slice
    # In a task with fewer runs, too: the number of threads must not depend on how runs were put together.
    share = f"$((${{SLURM_CPUS_PER_TASK:-1}} > {count} ? SLURM_CPUS_PER_TASK / {count} : 1))"
    return [
        f"export RELAY_SIGNAL_LEAD_S={profile.signal_lead_s} RELAY_KILL_WAIT_S={kill_wait_s}",
        f"export RELAY_NEEDS_GPU={int(profile.needs_gpu)}",
        f"export RELAY_SLICE={shlex.quote(gres or '')}",
        *([f"export RELAY_RUNS_PER_SLICE={count} RELAY_CPUS={share}"] if count > 1 else []),
    ]


def srun_command(folder: Path, call: Sequence[str], *, array: bool) -> str:
    """`python -m` the `call` as the task of a job, with its output where `log_options` says.

    srun, because without a step only the batch shell would be signalled.
    """
    logs = log_options(folder, array=array)
    # --export: in a job that was submitted with --export=NONE, srun would pass on no variable, not even PATH.
    srun = ["srun", "--unbuffered", "--export=ALL", f"--output={logs['output']}", f"--error={logs['error']}"]
    return f"{shlex.join(srun)} {python_command(call)}"


def python_command(call: Sequence[str]) -> str:
    """`python -m` the `call`, with this Python, which ignores SIGUSR2 until it has installed its handler."""
    # SLURM may send the signal up to a minute early (sbatch(1), --signal). Without a handler it would kill a process
    # that is still starting. If it is ignored, SIGTERM follows at the time limit, and by then the handler is installed.
    python = shlex.join([sys.executable, "-u", "-m", *call])
    return f'/bin/bash -c \'trap "" USR2; exec "$0" "$@"\' {python}'
