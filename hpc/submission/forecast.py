"""Forecast the slice-hours of runs from earlier runs with the same cost key on the same kind of slice."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

from hpc.submission.profile import Profile
from relay.errors import RunError
from relay.log import log
from relay.runs.attempt import Attempts, total_steps_of
from relay.runs.cells import Cell
from relay.runs.memory import most_memory
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request, sweeps, with_whole_manifests
from relay.text import counted

# How many of the newest runs of each cost key are read: status and launch must stay fast in a directory of thousands.
_ENOUGH = 20
# The safety margin on top of the time of a checkpoint, in seconds.
LEAD_MARGIN_S = 60


@dataclass(frozen=True)
class EarlierRun:
    """What one earlier run took: seconds on the slice per unit of work, and its longest checkpoint in seconds; None if
    unknown. `memory` has its peaks, as relay/runs/memory.py measures them.
    """

    seconds_per_unit: float | None
    save_s: float | None
    memory: Mapping[str, int]


@dataclass(frozen=True)
class Forecast:
    """A forecast for some runs.

    `slice_hours` covers the `measured` runs (None if there are none) and not the `unmeasured` ones, `earlier` counts
    the runs it is based on, `save_s` is the longest time to stop and save, in seconds, `memory` the greatest peaks, in
    MiB.
    """

    slice_hours: float | None
    measured: int
    unmeasured: int
    earlier: int
    at_a_time: int
    save_s: float | None
    memory: Mapping[str, int]

    def __str__(self) -> str:
        return self.hours_text() + self._memory_text()

    def hours_text(self) -> str:
        """What the runs will take, without their memory."""
        if self.slice_hours is None:
            return "forecast: no measurement, because no similar run was done on such a slice here before"
        text = (
            f"forecast: {show_hours(self.slice_hours)} slice-hours for {counted(self.measured, 'run')}, "
            f"about {show_hours(self.slice_hours / self.at_a_time)} h with {self.at_a_time} at a time "
            f"(from {counted(self.earlier, 'similar run')} before)"
        )
        rest = f"; not included: {counted(self.unmeasured, 'run')} without a similar run before"
        return text + (rest if self.unmeasured else "")

    def _memory_text(self) -> str:
        where = {"gpu_mb": "on the GPU", "host_mb": "of host memory"}
        peaks = [f"{self.memory[name] / 1024:.2g} GB {place}" for name, place in where.items() if name in self.memory]
        return f"\nmemory: a run takes up to {' and '.join(peaks)}, as similar runs did" if peaks else ""


def show_hours(hours: float) -> str:
    """Hours with two significant digits: 0.034, 0.42, 3.1, 48."""
    return f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"


def unfinished_cells(request: Request, sweep: SweepDir | None) -> list[Cell]:
    """The cells of a request whose runs in `sweep` are not done; all of them if there is no sweep yet."""
    # By position, not by name: the rates in the names of a stage change once its LR sweep is done.
    done = [run.is_done() for run in sweep.runs()] if sweep else []
    return [cell for cell, is_done in zip_longest(request.cells, done[: len(request.cells)]) if not is_done]


def forecast_of(request: Request, unfinished: Sequence[Cell], profile: Profile) -> Forecast:
    """Forecast the cells in `unfinished` under the profile."""
    history = measured_runs(request.runs_dir, {cell.cost_key for cell in unfinished}, profile)
    rates = _rates(history)
    known = [cell.units * rates[cell.cost_key] for cell in unfinished if cell.cost_key in rates]
    saves = [run.save_s for runs in history.values() for run in runs if run.save_s is not None]
    return Forecast(
        slice_hours=sum(known) / 3600 if known else None,
        measured=len(known),
        unmeasured=len(unfinished) - len(known),
        earlier=sum(len(runs) for key, runs in history.items() if key in rates),
        at_a_time=_at_a_time(profile, len(unfinished)),
        save_s=max(saves, default=None),
        memory=most_memory(run.memory for runs in history.values() for run in runs),
    )


def hours_left(sweep: SweepDir, left: Mapping[str, float], profile: Profile) -> float | None:
    """The hours until runs of a sweep are done, `left` being the part of each that is left; None if not known for all.

    Without the time that tasks wait for a slice.
    """
    cells = [cell for cell in sweep.cells() if left.get(cell.name)]
    history = measured_runs(sweep.path.parent, {cell.cost_key for cell in cells}, profile)
    rates = _rates(history)
    if not cells or any(cell.cost_key not in rates for cell in cells):
        return None
    hours = [cell.units * rates[cell.cost_key] * left[cell.name] / 3600 for cell in cells]
    return max(sum(hours) / _at_a_time(profile, len(cells)), max(hours) / profile.runs_per_slice)


def _rates(history: Mapping[str, Sequence[EarlierRun]]) -> dict[str, float]:
    """Cost key -> seconds on the slice per unit of work, of those that are known."""
    known = {
        key: [run.seconds_per_unit for run in runs if run.seconds_per_unit is not None] for key, runs in history.items()
    }
    return {key: fmean(rates) for key, rates in known.items() if rates}


def _at_a_time(profile: Profile, runs: int) -> int:
    return min(profile.max_parallel, max(1, math.ceil(runs / profile.cells_per_job)))


def total_of(parts: Sequence[Forecast]) -> Forecast:
    """The forecast of several parts that run one after the other, such as the stages of a pipeline."""
    known = [part.slice_hours for part in parts if part.slice_hours is not None]
    return Forecast(
        slice_hours=sum(known) if known else None,
        measured=sum(part.measured for part in parts),
        unmeasured=sum(part.unmeasured for part in parts),
        earlier=sum(part.earlier for part in parts),
        at_a_time=max(part.at_a_time for part in parts),
        save_s=max((part.save_s for part in parts if part.save_s is not None), default=None),
        memory=most_memory(part.memory for part in parts),
    )


def measured_runs(runs_dir: Path, cost_keys: Collection[str], profile: Profile) -> dict[str, list[EarlierRun]]:
    """Cost key -> earlier runs with it on slices like the profile's, from the newest sweeps."""
    by_key: dict[str, list[EarlierRun]] = {key: [] for key in cost_keys}
    for sweep in with_whole_manifests(reversed(sweeps(runs_dir))):
        if all(len(runs) >= _ENOUGH for runs in by_key.values()):
            break
        for cell in sweep.cells():
            runs = by_key.get(cell.cost_key)
            if runs is not None and len(runs) < _ENOUGH:
                measured = _measure(sweep.run(cell.name), cell.units, profile)
                runs += [measured] if measured else []
    return by_key


def _measure(run: RunDir, units: float, profile: Profile) -> EarlierRun | None:
    if run.damage():
        return None
    attempts = [each for each in run.attempts() if each.ended and _is_on_same_slice(each.slice, profile)]
    saves = [each.save_s for each in attempts if each.save_s is not None]
    result = run.result()
    if not attempts or not (saves or result):
        return None
    total, steps = total_steps_of(attempts), (result or {}).get("steps", attempts[-1].last_step or 0)
    # A diverged run ended early: it counts by the share of its steps, as a run that was stopped does.
    is_complete = result is not None and result.get("outcome") != "diverged"
    done = 1.0 if is_complete else steps / total if total else 0.0
    # In the first tenth of a run, start-up (imports, images) dominates the time.
    rate = _slice_s(attempts) / (units * done) if done >= 0.1 else None
    return EarlierRun(rate, max(saves, default=None), most_memory(each.memory for each in attempts))


def _slice_s(attempts: Attempts) -> float:
    """Seconds of a slice that ended attempts took: of a slice that several runs shared, an equal part."""
    return sum(each.seconds / each.at_once for each in attempts)


def _is_on_same_slice(name: object, profile: Profile) -> bool:
    wanted = profile.gres or profile.slice
    return wanted in str(name) if wanted else not name


def refuse_above(max_slice_hours: float | None, forecast: Forecast) -> None:
    """Raise RunError if the forecast is above `max_slice_hours`. Warn of runs that the forecast does not cover."""
    if max_slice_hours is None:
        return
    if forecast.slice_hours is not None and forecast.slice_hours > max_slice_hours:
        raise RunError(
            f"--max-slice-hours {max_slice_hours:g}: nothing was submitted; {forecast.hours_text()}; allow more, or "
            "ask for less (hparams, train.epochs)"
        )
    if forecast.unmeasured:
        log.warning(
            f"--max-slice-hours {max_slice_hours:g} does not cover {counted(forecast.unmeasured, 'run')}: no similar "
            "run was done before; to get a forecast, run one of them first"
        )


def warn_of_memory(profile: Profile, forecast: Forecast) -> None:
    """Warn if the measured memory of the runs that a task executes at a time is more than the profile gives it."""
    runs = profile.runs_per_slice
    at_once = f", and runs_per_slice is {runs}" if runs > 1 else ""
    slice_gb = re.search(r"(\d+)gb", profile.gres or profile.slice or "")
    host_mb, gpu_mb = (runs * forecast.memory.get(name, 0) for name in ("host_mb", "gpu_mb"))
    if profile.executor == "slurm" and profile.mem_gb is not None and host_mb > profile.mem_gb * 1024:
        log.warning(
            f"mem_gb: {profile.mem_gb:g} GB will not be enough: similar runs took "
            f"{host_mb / runs / 1024:.2g} GB each{at_once}; set it to {math.ceil(1.2 * host_mb / 1024)} or more"
        )
    if slice_gb and gpu_mb > int(slice_gb[1]) * 1024:
        log.warning(
            f"slice: {slice_gb[0]} will not be enough: similar runs took {gpu_mb / runs / 1024:.2g} GB of GPU memory "
            f"each{at_once}; choose a larger slice, or a smaller train.batch_size"
        )


def warn_of_short_lead(profile: Profile, forecast: Forecast) -> None:
    """Warn if the profile's lead time is shorter than the longest measured time to stop and save, plus a minute."""
    needed = (forecast.save_s or 0) + LEAD_MARGIN_S
    if forecast.save_s is not None and profile.executor == "slurm" and profile.signal_lead_s < needed:
        took = f"up to {forecast.save_s:.1f} s" if forecast.save_s >= 0.1 else "less than 0.1 s"
        log.warning(
            f"signal_lead_s: {profile.signal_lead_s} s is short: these runs took {took} to stop and save, "
            f"and a margin of a minute is recommended; set it to {math.ceil(needed)} or more"
        )
