"""Whether a finished run of a program is what another sweep would execute: its result is taken then."""

from __future__ import annotations

from collections.abc import Mapping

from relay.errors import RunError
from relay.files import read_lines
from relay.runs.environment import differences
from relay.runs.rundir import RunDir, SweepDir
from relay.text import shortlist

# The sections of a run's configuration that its key does not cover and that can change its result.
_SECTIONS = ("program", "metrics")


def why_other(origin: RunDir, sweep: SweepDir, versions: Mapping[str, str]) -> str:
    """Why a finished run with an equal key and equal inputs is not the run that `sweep` would execute; "" if it is.

    `versions`: of all that is installed for the program now. A run is the same only if all its attempts had the same
    code of the project and of Relay, the same command as Python, and the same versions.
    """
    then, now = origin.config(), sweep.runs()[0].config()
    other = [f"{name}.{key}" for name in _SECTIONS for key, value in now[name].items() if then[name].get(key) != value]
    if other:
        return f"executed with another value of {shortlist(other)}"
    if elsewhere := (origin.result() or {}).get("elsewhere"):
        return f"executed with code from outside of the project ({shortlist(elsewhere)})"
    try:
        attempts = read_lines(origin.provenance_file)
    except RunError:
        attempts = []
    # An attempt that was killed early may have left no line, but a state.
    known = {attempt.get("attempt") for attempt in attempts}
    if not attempts or any(each.number not in known for each in origin.attempts()):
        return "executed with code that is not known"
    if not versions:
        return "executed by a command of which no versions are known"
    meta = sweep.meta()
    if any(attempt.get("project") != meta["project"] for attempt in attempts):
        return "executed with other code of the project"
    if any(attempt.get("code_snapshot") != meta["snapshot"] for attempt in attempts):
        return "executed by another version of Relay"
    changes = next(filter(None, (differences(attempt.get("versions") or {}, versions) for attempt in attempts)), "")
    return f"executed under other versions ({shortlist(changes.split('; '))})" if changes else ""
