"""`python -m hpc.launch COMMAND`: the command line on the login node; nothing heavy is imported until it is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from src.cli import (
    ConfigOption,
    FreshOption,
    NewCodeOption,
    ReplaceBestOption,
    SetOption,
    UnfinishedOption,
    check_unfinished,
    make_app,
    overrides_of,
    run_app,
)

app = make_app(no_args_is_help=True, help="Submit runs to a cluster, see how they stand, stop them.")
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="PROFILE",
        help="A profile of configs/clusters; default: h100-mig if sbatch is here, else local.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the cells, the sbatch text and the forecast; touch nothing.")
]
HoursOption = Annotated[
    float | None,
    typer.Option("--max-slice-hours", min=0, metavar="HOURS", help="Refuse where the forecast is above it."),
]


@app.command()
def train(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    best: Annotated[bool, typer.Option("--best", help="Train the best cell of this configuration's grid.")] = False,
    unfinished: UnfinishedOption = False,
    replace_best: ReplaceBestOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """One full training."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config
    from src.requests import with_best_cell

    check_unfinished("--best", given=best, unfinished=unfinished)
    loaded = load_config(config, overrides_of(set_, checkpoint__replace_best=replace_best))
    chosen = with_best_cell(loaded, unfinished=unfinished) if best else loaded
    made = {"fresh": fresh, "new_code": new_code}
    sweep = launch("train", chosen, cluster, dry_run=dry_run, max_slice_hours=max_slice_hours, **made)
    if sweep and replace_best:
        from src.training.publish import replace_best_by

        replace_best_by(sweep)


@app.command("lr-sweep")
def lr_sweep(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """The LR sweep."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config

    loaded = load_config(config, overrides_of(set_))
    launch(
        "lr_sweep", loaded, cluster, dry_run=dry_run, fresh=fresh, new_code=new_code, max_slice_hours=max_slice_hours
    )


@app.command()
def grid(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    refined: Annotated[
        bool, typer.Option("--refined", help="The narrower grid around the best cell of the first one.")
    ] = False,
    unfinished: UnfinishedOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Every cell of the grid, as one array. Asked again, it continues the same grid."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config

    check_unfinished("--refined", given=refined, unfinished=unfinished)
    loaded = load_config(config, overrides_of(set_))
    options = {"refined": refined, "unfinished": unfinished}
    made = {"fresh": fresh, "new_code": new_code, **options}
    launch("grid", loaded, cluster, dry_run=dry_run, max_slice_hours=max_slice_hours, **made)


@app.command()
def evaluate(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="FILE", help="Default: artifacts/best.ckpt.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="val|test", help="Which images.")] = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """A checkpoint measured on val or test."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config

    loaded = load_config(config, overrides_of(set_, evaluation__checkpoint=checkpoint, evaluation__split=split))
    launch(
        "evaluate", loaded, cluster, dry_run=dry_run, fresh=fresh, new_code=new_code, max_slice_hours=max_slice_hours
    )


@app.command()
def pipeline(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    lr_factor: Annotated[
        list[float] | None,
        typer.Option("--lr-factor", min=0, help="The grid's rates: the sweep's times each of these; may be repeated."),
    ] = None,
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    max_slice_hours: HoursOption = None,
    advance: Annotated[str | None, typer.Option("--advance", metavar="PIPELINE", hidden=True)] = None,
) -> None:
    """LR sweep, grid, training of the best cell, evaluation; each reads what the one before found."""
    from pathlib import Path

    from hpc.pipeline import advance as stages
    from hpc.pipeline.directory import Pipeline
    from hpc.pipeline.start import start_pipeline
    from src.config.loading import load_config

    if advance:
        stages.advance(Pipeline(Path(advance)), by_stage_job=True)
    else:
        loaded, made = load_config(config, overrides_of(set_)), {"fresh": fresh, "new_code": new_code}
        start_pipeline(loaded, cluster, lr_factor or [], max_slice_hours=max_slice_hours, **made)


NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SWEEP|RUN|PIPELINE]",
        help="A sweep, a run as sweep/run, a pipeline, or a stage as pipeline/stage; a part of the name will do.",
    ),
]


@app.command()
def status(
    name: NameArgument = None,
    config: ConfigOption = "configs/config.yaml",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again until nothing is on its way.")] = False,
    every_s: Annotated[
        float | None, typer.Option("--every", min=1, metavar="SECONDS", help="As --watch, so often; default: 10.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """How the runs of a sweep stand, or the stages of a pipeline; the newest one, where none is named."""
    from hpc.monitor.status import show_status
    from src.config.loading import load_config

    show_status(load_config(config, overrides_of(set_)), name, every_s or (10 if watch else None))


@app.command()
def logs(
    name: NameArgument = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, across attempts.")] = False,
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """What a run printed, over all its attempts; of a pipeline, what the jobs that continue with it printed."""
    from hpc.monitor.logs import show_logs
    from src.config.loading import load_config

    show_logs(load_config(config, overrides_of(set_)), name, follow=follow)


@app.command()
def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP|RUN|PIPELINE|all")],
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
) -> None:
    """Stop what waits or runs, with its state saved; the command that submitted it goes on from there."""
    from hpc.monitor.cancel import cancel_runs
    from src.config.loading import load_config

    cancel_runs(load_config(config, overrides_of(set_)), name)


@app.command()
def retry(
    name: NameArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed runs of the sweep.")] = False,
    cause: Annotated[
        str | None, typer.Option("--cause", metavar="CAUSE", help="Only those that this ended, such as CRASHED.")
    ] = None,
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    set_: SetOption = None,
    new_code: NewCodeOption = False,
) -> None:
    """Give failed runs their budgets back, and submit them again; --new-code once the code is fixed."""
    from hpc.monitor.retry import retry as retry_runs
    from src import hints
    from src.config.loading import load_config
    from src.errors import RunError

    if not (failed or cause or (name and "/" in name)):
        all_of_them = hints.again("--failed")
        raise RunError(f"retry: give --cause CAUSE, or a run as sweep/run; for all failed runs: {all_of_them}")
    retry_runs(load_config(config, overrides_of(set_)), name, cluster, cause, new_code=new_code)


@app.command()
def doctor(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    no_node: Annotated[bool, typer.Option("--no-node", help="Ask no node, which may mean to wait for one.")] = False,
    set_: SetOption = None,
) -> None:
    """One page about this site: what fits, what does not, and what to do."""
    import sys

    from hpc.doctor.page import show_doctor
    from src.config.loading import load_config

    sys.exit(show_doctor(load_config(config, overrides_of(set_)), cluster, node=not no_node))


@app.command()
def plan(
    kind: Annotated[str, typer.Argument(metavar="train|lr-sweep|grid|evaluate")] = "grid",
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    set_: SetOption = None,
) -> None:
    """What a command would submit, and its forecast; as its --dry-run."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config
    from src.errors import RunError
    from src.runs.kinds import KINDS

    if kind.replace("-", "_") not in KINDS:
        raise RunError(f"plan {kind}: unknown; give one of {', '.join(KINDS).replace('_', '-')}")
    launch(kind.replace("-", "_"), load_config(config, overrides_of(set_)), cluster, dry_run=True)


@app.command()
def tensorboard(
    config: ConfigOption = "configs/config.yaml",
    port: Annotated[int, typer.Option("--port")] = 6006,
    set_: SetOption = None,
) -> None:
    """TensorBoard on all runs."""
    import os
    import sys

    from src.config.loading import load_config

    runs_dir = load_config(config, overrides_of(set_)).paths.runs_dir
    os.execv(sys.executable, [sys.executable, "-m", "tensorboard.main", "--logdir", runs_dir, "--port", str(port)])


if __name__ == "__main__":
    run_app(app)
