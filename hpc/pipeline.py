"""LR sweep, grid, training of the best cell, evaluation: one after the other, each reading what the one before found.

`advance` brings the chain as far as it can be brought now, and is safe to call at any time. On SLURM a small job that
depends on the jobs of a link calls it again when they are over; so does the user, where such a job is lost.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jobs
from hpc import slurm
from hpc.arrays import ask_site
from hpc.chain import LINKS, Chain, find_chain, make_chain
from hpc.cluster import Profile, load_profile, remember_profile
from hpc.commands import choose_code, execute
from hpc.forecast import forecast_of, refuse_above, total_of
from hpc.logs import show_in_logs
from hpc.plan import Site, job_name, options_without_slice
from hpc.slurm_command import retry
from hpc.stock import Stock, last_cause, refusals_by_word, take_stock
from hpc.submit import in_queue, submissions
from src import hints
from src.budgets import STOPPED_BY_USER
from src.cells import Cell
from src.code_snapshot import change_since, check_commands, new_code_hint
from src.config import Config, make_config
from src.errors import RelayError, RunError
from src.foreground import prepare_images
from src.log import log
from src.plans import best_cell
from src.results import best_row, collect, read_rows
from src.rundir import SweepDir
from src.sweeps import Request, check_same_images, find_sweep, open_sweep, planning
from src.tables import show_value

# Each try waits for half a minute itself.
_LINK_WAITS_S = (0,) * 19


def start(
    config: Config,
    cluster: str | None,
    lr_factors: Sequence[float],
    *,
    fresh: bool,
    new_code: bool = False,
    max_slice_hours: float | None = None,
) -> None:
    """Start a chain, or go on with the same one. Raises RunError where a link has failed."""
    chain = None if fresh else find_chain(config, lr_factors)
    # Mistakes in any link are said before the first one is submitted.
    grid = jobs.request_of("grid", _grid_config(config, config.train.optimizer.lr, lr_factors))
    asked = chain or (None if fresh else find_sweep(grid.runs_dir, grid.kind, grid.key))
    name, profile = load_profile(cluster or (asked.meta().get("profile") if asked else None))
    requests = [jobs.request_of("lr_sweep", config), grid, jobs.request_of("train", config)]
    forecast = total_of([forecast_of(request, _left_of(request, chain, fresh=fresh), profile) for request in requests])
    refuse_above(max_slice_hours, forecast)
    prepare_images(grid)
    word = "goes on" if chain else "new"
    chain = chain or make_chain(config, lr_factors, fresh=fresh)
    chain.use_profile(name, profile)
    print(f"{chain.path}: {word}: {' -> '.join(LINKS)}; profile {name}\n{forecast}", flush=True)
    if new_code and word != "new":
        chain.use_new_code()
    elif change := change_since(chain.snapshot()):
        print(f"goes on with the code that it was made with; {change}; {new_code_hint()}", flush=True)
    advance(chain, by_link=False, new_code=new_code)


def _left_of(request: Request, chain: Chain | None, *, fresh: bool) -> list[Cell]:
    """As many cells of a stage as are not done, in its sweep or in one of the same content."""
    known = chain.standing().get(request.kind, {}).get("sweep") if chain else None
    sweep = SweepDir(request.runs_dir / str(known)) if known else None
    if sweep is None and not fresh:
        sweep = find_sweep(request.runs_dir, request.kind, request.key)
    done = sum(run.is_done() for run in sweep.runs()) if sweep else 0
    return list(request.cells)[done:]


def advance(chain: Chain, *, by_link: bool, new_code: bool = False) -> None:
    """Bring the chain to its next wait, or to its end. Raises RunError where a link has failed, and says which.

    `by_link`: called by the chain's own job, which does not submit again what a user has stopped.
    """
    hints.use(chain.meta())
    _, profile = load_profile(str(chain.profile_file))
    name = str(chain.meta()["profile"])
    site = None
    if profile.executor == "slurm":
        # A link that finds the controller away must not be the end of the chain.
        site = retry(lambda: ask_site(name, profile), _LINK_WAITS_S if by_link else ())
    os.chdir(chain.meta()["folder"])
    with planning(chain.path):
        for link in LINKS:
            try:
                done = _advance_link(chain, link, profile, site, by_link=by_link, new_code=new_code)
            except RelayError as error:
                chain.record(**chain.standing().get(link, {}) | {"link": link, "state": "failed", "reason": str(error)})
                raise RunError(f"{chain.name} stops at {link}: {error}") from None
            if not done:
                return
    print(f"{chain.name} is complete")
    for link, line in chain.standing().items():
        print(f"  {link}: {line.get('found', '')}  ({line.get('sweep')})")


def _advance_link(
    chain: Chain, link: str, profile: Profile, site: Site | None, *, by_link: bool, new_code: bool
) -> bool:
    """True where the link is done; else its jobs are submitted, and a job that goes on after them."""
    request = _request(chain, link)
    sweep = _open_sweep(chain, link, request)
    stock = take_stock(sweep, in_queue(sweep) if site else {})
    if not stock.flying:
        _refuse_failed(sweep, stock, by_link=by_link)
    choose_code(sweep, new_code=new_code, root=chain.snapshot())
    if len(stock.done) < len(request.cells):
        print(f"{link}: {sweep.path}", flush=True)
        remember_profile(sweep, str(chain.meta()["profile"]))
        execute(sweep, profile, site, request.config, by_user=not by_link)
        if site and any(not run.is_done() for run in sweep.runs()):
            flying = {job.job_id for jobs in in_queue(sweep).values() for job in jobs}
            if not flying:
                raise RunError(
                    f"nothing of it is in the queue, yet not all of it is done; to see why: "
                    f"{hints.command('hpc.launch', 'status', sweep.name)}; to go on: {hints.again()}"
                )
            chain.record(link=link, state="submitted", sweep=sweep.name)
            _submit_next(chain, link, flying, profile)
            return False
    what = _found(link, sweep)
    if chain.standing()[link]["state"] != "done":
        if site:
            collect(sweep, Path(request.config.paths.artifacts_dir))
        chain.record(link=link, state="done", sweep=sweep.name, found=what)
    where = sweep.meta().get("profile")
    before = f"; on profile {where}, where it was done before" if where not in (None, chain.meta()["profile"]) else ""
    print(f"{link}: done, {what}{before}", flush=True)
    return True


def _open_sweep(chain: Chain, link: str, request: Request) -> SweepDir:
    """The link's sweep as it was planned before, or planned now: an earlier one of the same content, unless --fresh."""
    request = prepare_images(request)
    known = chain.standing().get(link, {}).get("sweep")
    sweep = SweepDir(request.runs_dir / known) if known else None
    if sweep is None or sweep.meta()["key"] != request.key:
        sweep, _ = open_sweep(request, fresh=bool(chain.meta()["fresh"]), code_root=chain.snapshot())
        chain.record(link=link, state="planned", sweep=sweep.name)
    check_same_images(sweep, request)
    return sweep


def _refuse_failed(sweep: SweepDir, stock: Stock, *, by_link: bool) -> None:
    if stock.refused:
        raise RunError(
            f"{len(stock.refused)} of {len(sweep.runs())} runs failed\n{refusals_by_word(stock.refused)}\n"
            f"to go on then: {hints.again()}"
        )
    submitted = {name for made in submissions(sweep) if made.job_id for runs in made.tasks for name in runs}
    stopped = [
        run
        for run in stock.missing
        if last_cause(run) in STOPPED_BY_USER or (not run.attempts() and run.name in submitted)
    ]
    stopped += stock.cancelled
    if by_link and stopped:
        logs = hints.command("hpc.launch", "logs", stopped[0].label)
        raise RunError(
            f"{len(stopped)} of {len(sweep.runs())} runs were cancelled, or ended before they began, such as "
            f"{stopped[0].name}: {logs}; to go on: {hints.again()}"
        )


def _request(chain: Chain, link: str) -> Request:
    config, factors = chain.config(), chain.meta()["lr_factors"]
    if link == "lr_sweep":
        return jobs.request_of(link, config)
    config = _grid_config(config, _suggestion(chain), factors)
    if link == "grid":
        return jobs.request_of(link, config)
    best = best_cell(_sweep_of(chain, "grid"))
    if best is None:
        raise RunError("no cell of the grid has a val/accuracy; see its table")
    best_config = make_config(config.to_dict(), "the best cell", best.overrides)
    if link == "train":
        return jobs.request_of(link, best_config)
    trained = _sweep_of(chain, "train").runs()[0]
    weights = trained.best_file
    if not weights.is_file():
        raise RunError(f"no epoch of {trained.label} had a finite loss on val; there is nothing to evaluate")
    named = make_config(best_config.to_dict(), "the training", {"evaluation.checkpoint": str(weights.absolute())})
    return jobs.request_of(link, named)


def _grid_config(config: Config, rate: float, factors: Sequence[float]) -> Config:
    """The configuration with what the LR sweep found: as the rate, or as a grid's axis around it where there are
    factors. An axis that the file gives is left as it is.
    """
    changed: dict[str, Any] = {"train.optimizer.lr": rate}
    if factors:
        changed["hparams.lr"] = [float(f"{rate * factor:.3g}") for factor in factors]
    return make_config(config.to_dict(), "the LR sweep", changed)


def _suggestion(chain: Chain) -> float:
    """The median over the seeds of what each suggests. Raises RunError where none does."""
    results = [run.result() or {} for run in _sweep_of(chain, "lr_sweep").runs()]
    rates = [result["suggestion"]["valley"] for result in results if (result.get("suggestion") or {}).get("valley")]
    if not rates:
        raise RunError("the LR sweep suggests no rate: its loss never fell; widen lr_finder.min_lr and max_lr")
    return float(f"{median(rates):.3g}")


def _sweep_of(chain: Chain, link: str) -> SweepDir:
    return SweepDir(Path(chain.config().paths.runs_dir) / str(chain.standing()[link]["sweep"]))


def _found(link: str, sweep: SweepDir) -> str:
    rows = read_rows(sweep)
    if link == "lr_sweep":
        return "valley " + ", ".join(show_value(row.get("valley")) or "none" for row in rows)
    if link == "evaluate":
        loss = show_value(rows[0]["loss"]) or "not finite"
        return f"{rows[0]['split']} accuracy {show_value(rows[0]['accuracy'])}, loss {loss}"
    best = best_row(rows)
    return f"best {best['run']}, val/accuracy {show_value(best['val/accuracy'])}" if best else "nothing measured"


def _submit_next(chain: Chain, link: str, flying: set[str], profile: Profile) -> None:
    """A small job that goes on with the chain once the link's jobs are over, however they end."""
    # One that runs is this one, or does just the same at this moment.
    waiting = [job for job in slurm.queued(chain.job_names()) if slurm.phase(job.state) == "waiting"]
    if waiting:
        print(f"job {waiting[0].job_id} goes on with {chain.name} after it")
        return
    name = job_name(chain.path, len(chain.job_names()) + 1)
    chain.record(job_name=name, after=link)
    chain.jobs.mkdir(exist_ok=True)
    show_in_logs(chain.config(), chain.jobs)
    options = options_without_slice(
        profile,
        dependency="afterany:" + ":".join(sorted({job.partition("_")[0] for job in flying})),
        output=str(chain.jobs / "%j.out"),
        chdir=chain.meta()["folder"],
    )
    job = slurm.submit_script(name, _link_script(chain, profile), options)
    log.info(f"job {job} goes on with {chain.name} when the jobs of {link} are over")


def _link_script(chain: Chain, profile: Profile) -> str:
    call = [sys.executable, "-m", "hpc.launch", "pipeline", "--advance", str(chain.path)]
    lines = [
        *check_commands(chain.snapshot()),
        f"cd {shlex.quote(chain.meta()['folder'])}",
        *profile.setup,
        shlex.join(call),
    ]
    return "\n".join(lines)
