"""Looking at a pipeline and stopping it: which names mean one, what its stages came to, and what goes on with it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc import slurm
from hpc.pipeline.directory import LINKS, Chain, chains
from hpc.submission.submit import in_queue, submissions
from src import hints
from src.config.schema import Config
from src.errors import ClusterError, RunError
from src.log import log
from src.results.terminal import print_rows
from src.runs.rundir import SweepDir
from src.runs.sweeps import being_planned, sweeps
from src.text import shortlist


def find_pipeline(runs_dir: Path, name: str | None) -> Chain | None:
    """The pipeline that `name` means: its name or path, or the only one that has it as a part; without a name, the
    newest one, where nothing else was asked for since. None where it is no pipeline's name.
    """
    made = chains(runs_dir)
    if name is None:
        return _newest(runs_dir, made)
    wanted = name.strip("/").rpartition("/")[2] if Path(name).is_dir() else name.strip("/")
    exact = [chain for chain in made if chain.name == wanted]
    # A part that every pipeline has as well as sweeps, such as a date, means a sweep or nothing.
    found = exact or [chain for chain in made if wanted.startswith("pipeline") and wanted in chain.name]
    if len(found) > 1:
        shown = ", ".join(chain.name for chain in found)
        raise RunError(f"{name!r}: {len(found)} pipelines have that in their name: {shown}; give one of them in full")
    return found[0] if found else None


def _newest(runs_dir: Path, made: Sequence[Chain]) -> Chain | None:
    known = sweeps(runs_dir)
    if not made:
        return None
    stages = {str(line.get("sweep")) for line in made[-1].standing().values()}
    newer = [s for s in known if s.name not in stages and str(s.meta()["created"]) > str(made[-1].meta()["created"])]
    return None if newer else made[-1]


def name_of_stage(runs_dir: Path, name: str | None) -> str | None:
    """`<pipeline>/<stage>` and `<pipeline>/<stage>/<run>` as the sweep's and the run's name, a pipeline as the sweep of
    the stage that it has come to; other names as they are.

    Raises RunError where the stage is unknown, or has no sweep yet.
    """
    pipeline, _, rest = (name or "").partition("/")
    chain = find_pipeline(runs_dir, pipeline) if name else None
    if chain is None:
        return name
    if not rest and sweeps_of(chain):
        return sweeps_of(chain)[-1].name
    stage, _, run = rest.partition("/")
    link = stage.replace("-", "_")
    if link not in LINKS:
        raise RunError(f"{name}: {chain.name} has no stage {stage}; its stages: {', '.join(LINKS)}")
    sweep = chain.standing().get(link, {}).get("sweep")
    if not sweep:
        status = hints.command("hpc.launch", "status", chain.name)
        raise RunError(f"{name}: this stage is not planned yet; to see how the pipeline stands: {status}")
    return f"{sweep}/{run}" if run else str(sweep)


def show_pipeline(chain: Chain) -> bool:
    """A table of the stages: their sweeps, jobs and runs, and what each found; then what goes on with the pipeline.

    False where nothing of it is on its way.
    """
    hints.use(chain.meta())
    standing, waiting = chain.standing(), ""
    try:
        going_on = [job for job in slurm.queued(chain.job_names()) if slurm.in_flight(job.state)]
        waiting = ", ".join(f"{job.job_id} {job.state} {job.reason}".strip() for job in going_on)
    except ClusterError as error:
        log.warning(f"the scheduler could not be asked, what follows is from disk alone: {error}")
    rows = [_row(chain, link, standing.get(link, {})) for link in LINKS]
    print_rows(rows, chain.name)
    # On SLURM for as long as it submits, on this machine from its first stage to its last.
    at_work = being_planned(chain.path)
    failed = [line for line in standing.values() if line["state"] == "failed"]
    if failed and not at_work:
        print(f"{chain.name} stops at {failed[-1]['link']}: {failed[-1].get('reason', '')}")
    elif standing.get(LINKS[-1], {}).get("state") == "done":
        print(f"{chain.name} is complete")
    elif waiting:
        print(f"job {waiting} goes on with it")
    elif at_work:
        print("a process goes on with it at this moment")
    else:
        print(f"nothing is in the queue that goes on with it; to go on: {hints.again()}")
    planned = [link for link in LINKS if standing.get(link, {}).get("sweep")]
    if planned:
        print(f"the runs of a stage: {hints.command('hpc.launch', 'status', f'{chain.name}/{planned[-1]}')}")
    return bool(waiting) or at_work or any(row["jobs"] for row in rows)


def watch_pipeline(chain: Chain, every_s: float | None) -> None:
    """Show it; with `every_s`, again after so many seconds until nothing of it is on its way, or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while show_pipeline(chain) and every_s:
            time.sleep(every_s)


def _row(chain: Chain, link: str, line: Mapping[str, Any]) -> dict[str, Any]:
    sweep = SweepDir(chain.path.parent / str(line["sweep"])) if line.get("sweep") else None
    runs, jobs = sweep.runs() if sweep else [], ""
    if sweep and not all(run.is_done() for run in runs) and submissions(sweep):
        try:
            found = {job.job_id: job for jobs in in_queue(sweep).values() for job in jobs}
        except ClusterError:
            found = {}
        counts = Counter(job.state for job in found.values())
        ids = sorted({job.array_id for job in found.values()})
        jobs = " ".join(ids) + (": " if ids else "") + ", ".join(f"{count} {state}" for state, count in counts.items())
    done = sum(run.is_done() for run in runs)
    return {
        "stage": link,
        "state": line.get("state", "waits"),
        "sweep": sweep.name if sweep else None,
        "runs done": f"{done}/{len(runs)}" if sweep else None,
        "jobs": jobs or None,
        "found": line.get("found"),
    }


def sweeps_of(chain: Chain) -> list[SweepDir]:
    """Those of its stages that are planned, in order."""
    standing = chain.standing()
    found = [standing[link]["sweep"] for link in LINKS if standing.get(link, {}).get("sweep")]
    return [SweepDir(chain.path.parent / str(name)) for name in found]


def stop_going_on(chain: Chain) -> list[str]:
    """Cancel the jobs that go on with the pipeline, so that they submit nothing more, and write that down for the stage
    that is not done. Returns the ids of the jobs.
    """
    ids = [job.job_id for job in slurm.queued(chain.job_names()) if slurm.in_flight(job.state)]
    slurm.cancel(ids)
    standing = chain.standing()
    for line in [standing[link] for link in LINKS if standing.get(link, {}).get("state", "done") != "done"][:1]:
        chain.record(**{**line, "state": "cancelled"})
    return ids


def say_others(runs_dir: Path, shown: str) -> None:
    """Where something was shown that nobody named: that it is the newest, and how to see another one."""
    of_pipelines = {sweep.name for chain in chains(runs_dir) for sweep in sweeps_of(chain)}
    alone = [(str(sweep.meta()["created"]), sweep.name) for sweep in sweeps(runs_dir) if sweep.name not in of_pipelines]
    made = sorted([*alone, *((str(chain.meta()["created"]), chain.name) for chain in chains(runs_dir))])
    others = [name for _, name in reversed(made) if name != shown]
    if others:
        print(f"{shown} is the newest of {len(others) + 1}; the others: {shortlist(others)}")
        print(f"to see one of them: {hints.command('hpc.launch', 'status', others[0])}")


def show_pipeline_log(config: Config, chain: Chain) -> None:
    """What the jobs that go on with the pipeline have printed. Raises RunError where none has started yet."""
    folder = Path(config.paths.logs_dir).absolute() / chain.name
    files = sorted(folder.glob("*.out"), key=lambda path: path.stat().st_mtime)
    for path in files:
        print(f"=== {path}\n{path.read_text(errors='replace').rstrip()}")
    planned = [link for link in LINKS if chain.standing().get(link, {}).get("sweep")]
    stage = hints.command("hpc.launch", "logs", f"{chain.name}/{planned[-1] if planned else LINKS[0]}")
    if not files:
        raise RunError(f"{chain.name}: no job that goes on with it has started yet; the log of a stage: {stage}")
    print(f"the log of a stage: {stage}")
