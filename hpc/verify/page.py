"""`verify`: whether a run may be interrupted anywhere and ends as if it had not been, shown on one page."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.submission.profile import Profile
from hpc.verify.command_page import is_command, show_command
from hpc.verify.comparing import Difference, first_difference, unsteady_values, unused_generators
from hpc.verify.showing import CAUSES, in_the_time_of, print_line, where_it_holds
from hpc.verify.trials import TRIALS, Trial, at_once, run_trial
from relay.config import yaml_file
from relay.errors import RunError
from relay.files import remove_tree, replace_file
from relay.program.states import list_states
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request, open_sweep
from relay.text import counted

_STOPS = 3
# With fewer steps, there is none to stop and to kill at.
_FEWEST_STEPS = 4


@dataclass(frozen=True)
class Plan:
    """Where the trials of a run with so many steps are interrupted, the same for the same `seed`."""

    steps: int
    seed: int

    @property
    def stops(self) -> list[int]:
        """The steps after which the run is stopped."""
        return sorted(random.Random(self.seed).sample(range(1, self.steps), min(_STOPS, self.steps - 1)))

    @property
    def save_every(self) -> int:
        """How often the run that is killed saves."""
        return max(2, self.steps // 6)

    @property
    def kill(self) -> int:
        """The step after which it is killed: one that is not saved, after one that is."""
        steps = [step for step in range(self.save_every + 1, self.steps) if step % self.save_every]
        return random.Random(self.seed).choice(steps or [self.steps - 1])


def show_verify(request: Request, steps: int, seed: int, profile: Profile, where: Path | None = None) -> int:
    """Run the trials of the request's first run on this machine, up to `steps` steps, and print the page.

    `where`: the folder for theirs; by default, that of temporary files. Returns the exit code: 0 only if all is equal.
    Raises RunError if it cannot be told.
    """
    with _folder(where) as folder:
        sweep = _sweep(request, folder)
        runs = {name: sweep.run(name) for name in TRIALS}
        if is_command(runs["straight"]):
            code = show_command(runs, seed, request.select.column, profile)
            if code == 0:
                remove_tree(folder)
            else:
                print(f"the runs and their output: {folder}")
            return code
        straight, again = at_once(lambda name: run_trial(runs[name], steps), ("straight", "again"))
        made = straight.last_step
        if made < _FEWEST_STEPS:
            remove_tree(folder)
            raise RunError(
                f"verify: the run makes {counted(made, 'step')}, and to interrupt it in between takes at least "
                f"{_FEWEST_STEPS}; give it more"
            )
        plan = Plan(made, seed)
        _save_every(runs["killed"], plan.save_every)
        print(_title(runs["straight"], made), flush=True)
        unused = unused_generators(straight)
        unsteady = unsteady_values(straight, again, request.select.column)
        difference = first_difference(straight, again, [*unused, *unsteady])
        unused += unsteady
        print_line("twice without a stop", _equal(straight, unused) if difference is None else f"differ: {difference}")
        if difference:
            print(f"not deterministic by itself: {difference}; of resuming, nothing can be said; {CAUSES}")
            return _leave(folder, straight)
        trials = {
            "stopped": lambda: run_trial(runs["stopped"], steps, plan.stops),
            "killed": lambda: run_trial(runs["killed"], steps, kill_after=plan.kill),
        }
        stopped, killed = at_once(lambda name: trials[name](), tuple(trials))
        differences = [first_difference(straight, trial, unused) for trial in (stopped, killed)]
        print_line(f"stopped after steps {', '.join(map(str, plan.stops))}", _verdict(differences[0]))
        resumed = f", resumed from step {killed.traces[1].first_step}"
        print_line(f"killed after step {plan.kill}", _verdict(differences[1]) + ("" if differences[1] else resumed))
        print(f"  {_times(list(runs.values()), profile)}")
        found = next(filter(None, differences), None)
        if found:
            attempt = f", in the attempt that resumed at step {found.resumed}" if found.resumed is not None else ""
            print(f"not exact: {found}{attempt}")
            return _leave(folder, straight)
        if unsteady:
            print(f"  {', '.join(unsteady)}: differ without a stop, and are not compared")
        if straight.warnings:
            print(f"equal in these steps, but: {' '.join(straight.warnings)}")
            return _leave(folder, straight, warned=True)
        total = runs["straight"].attempts()[-1].total_steps or made
        seen = f" in these {made} of {total} steps" if made < total else ""
        print(f"exact: this run may be interrupted anywhere{seen}; {where_it_holds(runs['straight'])}")
        remove_tree(folder)
        return 0


def _verdict(difference: Difference | None) -> str:
    return f"differs: {difference}" if difference else "equal bit for bit"


def _equal(trial: Trial, unused: Container[str]) -> str:
    """What was compared."""
    objects = [name for trace in trial.traces for objects in trace.objects.values() for name in objects]
    names = [name for name in dict.fromkeys(objects) if name not in unused]
    return f"equal: {', '.join([*names, counted(len(trial.rows), 'row')])}"


def _leave(folder: Path, trial: Trial, *, warned: bool = False) -> int:
    for text in () if warned else trial.warnings:
        print(text)
    print(f"the runs and their output: {folder}")
    return 1


def _title(run: RunDir, steps: int) -> str:
    total = run.attempts()[-1].total_steps or steps
    config = run.config()
    params = config.get("params") or {}
    shown = " ".join(f"{name}={value}" for name, value in params.items())
    what = (config.get("program") or {}).get("function", run.sweep().kind)
    return f"{what}, {steps} of {total} steps{f', {shown}' if shown else ''}"


def _times(runs: Sequence[RunDir], profile: Profile) -> str:
    """Whether a stop is answered before SLURM kills the job."""
    attempts = [attempt for run in runs for attempt in run.attempts()]
    longest = max((attempt.save_s for attempt in attempts if attempt.save_s is not None), default=0.0)
    size = max((path.stat().st_size for run in runs for path in list_states(run.checkpoints)), default=0)
    took = f"the longest step and a save took {longest:.2f} s ({size / 1e6:.1f} MB)"
    words = {"in_time": "a stop is answered in time", "too_late": "too long: raise signal_lead_s"}
    return in_the_time_of(profile, took, longest, **words)


def _sweep(request: Request, folder: Path) -> SweepDir:
    """A sweep with the request's first run once for each trial."""
    cell = request.cells[0]
    cells = []
    for index, name in enumerate(TRIALS):
        config = yaml_file.parse_yaml(cell.config, cell.name)
        config["checkpoint"] = {**config["checkpoint"], "every_steps": None, "every_minutes": None}
        # Nothing of it may reach the user's folders.
        config["paths"] = {name: str(folder) for name in config["paths"]}
        cells.append(replace(cell, index=index, name=name, overrides={}, config=yaml_file.dump_yaml(config)))
    data = request.prepare(False)
    paths = request.paths.model_copy(update={"runs_dir": str(folder)})
    made = replace(request, cells=cells, paths=paths, data={name: data[cell.name] for name in TRIALS if data})
    return open_sweep(made, fresh=True)[0]


def _save_every(run: RunDir, steps: int) -> None:
    """Let the run save every so many steps. How often it does is no part of what it is."""
    config = run.config()
    config["checkpoint"]["every_steps"] = steps
    replace_file(run.config_file, yaml_file.dump_yaml(config))


@contextmanager
def _folder(where: Path | None) -> Iterator[Path]:
    """A new folder, which is left if the runs are not exact."""
    folder = Path(tempfile.mkdtemp(prefix="relay-verify-", dir=where))
    try:
        yield folder
    except BaseException as error:
        # The output of an attempt that failed is kept, and named by the error.
        if not isinstance(error, RunError) or str(folder) not in str(error):
            remove_tree(folder)
        raise
