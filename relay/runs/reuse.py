"""Runs whose work reuses take the result of a finished run of the same training, instead of repeating it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from relay.errors import RelayError
from relay.files import replace_file
from relay.log import log
from relay.runs.cells import PlannedRun
from relay.runs.environment import computing_versions, differences, environments_of, resumed_under
from relay.runs.planned import restore_config
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests

# What a reader of a finished run may want besides its result. Its attempts are not among them: a run that reuses made
# none, and took no time.
_FILES = ("metrics_file", "provenance_file", "predictions_file", "best_file")


def reuse_finished(sweep: SweepDir, why_other: Callable[[RunDir, SweepDir], str] | None = None) -> list[RunDir]:
    """Complete the missing runs of `sweep` from finished runs with the same content key and data, and in which
    `why_other` sees no other difference (by default, in the versions of the packages that compute); returns them.

    Such a run gets a copy of the files of the finished one, and its result names it as `reused_from`. On which device
    the others will be trained is not known here: tables say which runs differ in it. Only works that reuse do this.
    Raises RunError if files cannot be read or written.
    """
    missing = [cell for cell in sweep.cells() if not sweep.run(cell.name).is_done()]
    reused = []
    for run, origin in _origins(sweep, missing, why_other or other_versions):
        restore_config(run)
        with run.lock():
            if not run.is_done() and not run.attempts():
                _copy(origin, run)
                same = f"which is the same run{_computed_on(origin)}{_other_code(sweep, origin)}"
                log.info(f"{run.label}: reuses {origin.label}, {same}")
                reused.append(run)
    return reused


def _origins(
    sweep: SweepDir, missing: Iterable[PlannedRun], why_other: Callable[[RunDir, SweepDir], str]
) -> Iterator[tuple[RunDir, RunDir]]:
    """Each missing run that a finished one equals, with the newest such run."""
    unmatched = {(cell.key, cell.data): cell.name for cell in missing if cell.data}
    others = (other for other in reversed(sweeps(sweep.path.parent)) if other != sweep)
    for other in with_whole_manifests(others):
        if not unmatched:
            return
        for cell in other.cells():
            wanted = (cell.key, cell.data)
            if wanted not in unmatched or not _is_complete(origin := other.run(cell.name)):
                continue
            resumed = resumed_under(environments_of(origin.result(), ()))
            if reason := f"resumed under {resumed}" if resumed else why_other(origin, sweep):
                log.info(f"{sweep.run(unmatched[wanted]).label}: does not reuse {origin.label}, which was {reason}")
            else:
                yield sweep.run(unmatched.pop(wanted)), origin


def _is_complete(run: RunDir) -> bool:
    """Whether the run is done with whole files, and its best weights, if it has any, were not removed since."""
    try:
        result = run.result()
        run.check_files()
    except RelayError:
        return False
    return result is not None and (not result.get("best") or run.best_file.is_file())


def other_versions(origin: RunDir, sweep: SweepDir) -> str:
    """Why the run is not the same training as one that this environment would start; "" if it is."""
    environments, here = environments_of(origin.result(), ()), computing_versions()
    versions = {name: version for each in environments[:1] for name, version in each.items() if name in here}
    other = differences(versions, here)
    return f"trained under other versions ({other})" if other else ""


def _computed_on(origin: RunDir) -> str:
    environment = environments_of(origin.result(), ())[0]
    return f", on {environment.get('gpu') or environment.get('cpu')}"


def _copy(origin: RunDir, run: RunDir) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    for name in _FILES:
        if getattr(origin, name).is_file():
            replace_file(getattr(run, name), getattr(origin, name).read_bytes())
    for events in _event_files(origin):
        shutil.copyfile(events, run.path / events.name)
    result = origin.result() or {}
    # As everywhere, the result comes last.
    run.write_result({**result, "reused_from": result.get("reused_from", origin.label)})


def _event_files(run: RunDir) -> Iterable[Path]:
    return sorted(run.path.glob("events.out.tfevents.*"))


def _other_code(sweep: SweepDir, origin: RunDir) -> str:
    codes = [each.meta().get("snapshot") for each in (sweep, origin.sweep())]
    return "" if codes[0] == codes[1] else f", trained with other code (snapshot {codes[1]})"
