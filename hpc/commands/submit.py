"""The commands that plan and submit runs: train, lr-sweep, grid, compare, evaluate, pipeline and plan."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc.commands import ClusterOption, TrustOption
from src.cli import (
    ConfigOption,
    FreshOption,
    NewCodeOption,
    RefinedOption,
    ReplaceBestOption,
    SetOption,
    UnfinishedOption,
    check_unfinished,
    make_app,
    overrides_of,
)

app = make_app()
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the runs, the sbatch script and the forecast. Submit and write nothing."),
]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--max-slice-hours",
        min=0,
        metavar="HOURS",
        help="Submit nothing if the forecast is above this many slice-hours.",
    ),
]


@app.command()
def train(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    best: Annotated[
        bool, typer.Option("--best", help="Train with the hyperparameters of the grid's best cell.")
    ] = False,
    unfinished: UnfinishedOption = False,
    replace_best: ReplaceBestOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Train one model in full."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config
    from src.requests import with_best_cell

    check_unfinished("--best", given=best, unfinished=unfinished)
    loaded = load_config(config, overrides_of(set_, checkpoint__replace_best=replace_best))
    chosen = with_best_cell(loaded, unfinished=unfinished) if best else loaded
    sweep = launch(
        "train", chosen, cluster, dry_run=dry_run, fresh=fresh, new_code=new_code, max_slice_hours=max_slice_hours
    )
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
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Suggest a learning rate. The rate rises step by step while the loss is watched (a range test)."""
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
    refined: RefinedOption = 0,
    unfinished: UnfinishedOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Train every cell of the grid as one SLURM array. The same command continues an unfinished grid."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config

    check_unfinished("--refined", given=bool(refined), unfinished=unfinished)
    loaded = load_config(config, overrides_of(set_))
    how = {"unfinished": unfinished, "dry_run": dry_run, "fresh": fresh, "new_code": new_code}
    launch("grid", loaded, cluster, refined=refined, max_slice_hours=max_slice_hours, **how)


@app.command()
def compare(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Train the base and each variant in full, as one SLURM array, and compare them.

    The variants are those of the config's section compare. A finished training of the same configuration is reused.
    It says how many it trains before it does; --dry-run only says it. Without that section, nothing is trained: the
    best cell of the grid is compared with its neighbours.
    """
    from hpc.submission.launching import launch
    from src.config.loading import load_config
    from src.neighbours import show_neighbours

    loaded = load_config(config, overrides_of(set_))
    if not loaded.compare.variants and not dry_run:
        show_neighbours(loaded, None)
        return
    launch("compare", loaded, cluster, dry_run=dry_run, fresh=fresh, new_code=new_code, max_slice_hours=max_slice_hours)


@app.command()
def evaluate(
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="FILE", help="The weights to evaluate. Default: artifacts/best.ckpt."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="val|test", help="The images to evaluate on. Default: the config's evaluation.split."
        ),
    ] = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
) -> None:
    """Evaluate a checkpoint on the val or test split."""
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
        typer.Option(
            "--lr-factor",
            min=0,
            metavar="FACTOR",
            help="Search this multiple of the LR sweep's rate in the grid; may be repeated.",
        ),
    ] = None,
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
    advance: Annotated[str | None, typer.Option("--advance", metavar="PIPELINE", hidden=True)] = None,
) -> None:
    """Run LR sweep, grid, training and evaluation.

    Each stage uses the result of the one before: the grid searches around the sweep's rate, the training takes the
    best cell, the evaluation its weights.
    """
    from pathlib import Path

    from hpc.pipeline.advance import advance_at
    from hpc.pipeline.start import start_pipeline
    from src.config.loading import load_config

    # Hidden: only the job that SLURM starts between two stages passes it.
    if advance:
        advance_at(Path(advance))
        return
    start_pipeline(
        load_config(config, overrides_of(set_)),
        cluster,
        lr_factor or [],
        max_slice_hours=max_slice_hours,
        fresh=fresh,
        new_code=new_code,
    )


@app.command()
def plan(
    kind: Annotated[
        str, typer.Argument(metavar="train|lr-sweep|grid|compare|evaluate", help="The command to plan.")
    ] = "grid",
    config: ConfigOption = "configs/config.yaml",
    cluster: ClusterOption = None,
    trust: TrustOption = False,
    set_: SetOption = None,
) -> None:
    """Show what a command would submit. The same as its --dry-run."""
    from hpc.submission.launching import launch
    from src.config.loading import load_config
    from src.errors import RunError
    from src.runs.kinds import KINDS

    if kind.replace("-", "_") not in KINDS:
        raise RunError(f"plan {kind}: no such command; choose from {', '.join(KINDS).replace('_', '-')}")
    launch(kind.replace("-", "_"), load_config(config, overrides_of(set_)), cluster, dry_run=True)
