"""Which names mean a pipeline or one of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.pipeline.directory import STAGES, Pipeline, all_pipelines
from relay import hints
from relay.errors import RunError
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps
from relay.text import shortlist


def find_pipeline(runs_dir: Path, name: str | None) -> Pipeline | None:
    """The pipeline with this name or path, or the only one whose name contains `name`. Without a name: the newest one,
    if no sweep outside of it is newer. None if no pipeline has this name.

    Raises RunError if several pipelines match.
    """
    pipelines = all_pipelines(runs_dir)
    if name is None:
        return _newest(runs_dir, pipelines)
    wanted = name.strip("/").rpartition("/")[2] if Path(name).is_dir() else name.strip("/")
    exact = [pipeline for pipeline in pipelines if pipeline.name == wanted]
    # A part such as a date can match sweeps too, and then means a sweep: only `pipeline...` can mean a pipeline.
    matches = exact or [pipeline for pipeline in pipelines if wanted.startswith("pipeline") and wanted in pipeline.name]
    if len(matches) > 1:
        shown = ", ".join(pipeline.name for pipeline in matches)
        raise RunError(f"{name!r}: {len(matches)} pipelines have that in their name: {shown}; give one of them in full")
    return matches[0] if matches else None


def _newest(runs_dir: Path, pipelines: Sequence[Pipeline]) -> Pipeline | None:
    # Read even if there is no pipeline: this warns of damaged sweeps.
    all_sweeps = sweeps(runs_dir)
    if not pipelines:
        return None
    newest = pipelines[-1]
    own, number = {sweep.name for sweep in newest.stage_sweeps()}, newest.meta()["number"]
    is_newest = all(sweep.name in own or sweep.meta()["number"] < number for sweep in all_sweeps)
    return newest if is_newest else None


def resolve_stage_name(runs_dir: Path, name: str | None) -> str | None:
    """Translate names of pipelines into names of sweeps and runs; return other names unchanged.

    `<pipeline>/<stage>` becomes the stage's sweep, `<pipeline>/<stage>/<run>` its run, and `<pipeline>` the sweep of
    the last stage that is planned. Raises RunError if the stage is unknown or not planned yet.
    """
    first, _, rest = (name or "").partition("/")
    pipeline = find_pipeline(runs_dir, first) if name else None
    if pipeline is None:
        return name
    if not rest and (planned := pipeline.stage_sweeps()):
        return planned[-1].name
    given, _, run = rest.partition("/")
    stage = given.replace("-", "_")
    if stage not in STAGES:
        raise RunError(f"{name}: {pipeline.name} has no stage {given}; its stages: {', '.join(STAGES)}")
    sweep = pipeline.stage_sweep(stage)
    if sweep is None:
        status = hints.command("hpc.launch", "status", pipeline.name)
        raise RunError(f"{name}: this stage is not planned yet; to see the state of the pipeline: {status}")
    return f"{sweep.name}/{run}" if run else sweep.name


def list_other_names(runs_dir: Path, shown: str) -> None:
    """Say that `shown`, which the user did not name, is the newest of several, and how to see another one."""
    pipelines = all_pipelines(runs_dir)
    of_pipelines = {sweep.name for pipeline in pipelines for sweep in pipeline.stage_sweeps()}
    shown_alone = [sweep for sweep in sweeps(runs_dir) if sweep.name not in of_pipelines]
    named: list[SweepDir | Pipeline] = [*shown_alone, *pipelines]
    by_age = sorted((each.meta()["number"], each.name) for each in named)
    others = [name for _, name in reversed(by_age) if name != shown]
    if others:
        print(f"{shown} is the newest of {len(others) + 1}; the others: {shortlist(others)}")
        print(f"to see one of them: {hints.command('hpc.launch', 'status', others[0])}")
