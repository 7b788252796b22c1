"""The commands that plan and submit runs: one for each work, pipeline, and plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hpc.commands import ClusterOption, TrustOption
from hpc.works import PIPELINE, WORKS
from relay.cli import ConfigOption, FreshOption, NewCodeOption, SetOption, make_app, run_command
from relay.runs.rundir import SweepDir
from relay.work import Work

app = make_app()
_T = TypeVar("_T")
_COMMANDS = {name: work for name, work in WORKS.items() if work.request}
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
HereOption = Annotated[
    bool,
    typer.Option("--here", help="Execute the current code in this process, for a debugger, and not from a snapshot."),
]


def command_of(work: Work, default_cluster: str | None = None) -> Callable[..., SweepDir | None]:
    """The command that requests runs of a work: its own options are the keyword parameters of `work.request`."""

    def command(
        config: ConfigOption = "",
        cluster: ClusterOption = default_cluster,
        set_: SetOption = None,
        dry_run: DryRunOption = False,
        here: HereOption = False,
        fresh: FreshOption = False,
        new_code: NewCodeOption = False,
        trust: TrustOption = False,
        max_slice_hours: HoursOption = None,
        **options: Any,
    ) -> SweepDir | None:
        from hpc.submission.launching import launch

        assert work.request
        request = work.request(config, set_ or [], **options)
        if callable(request):
            if dry_run:
                print(f"{work.name}: nothing needs to be run")
            else:
                request()
            return None
        how = {"dry_run": dry_run, "here": here, "fresh": fresh, "new_code": new_code}
        return launch(request, cluster, max_slice_hours=max_slice_hours, **how)

    assert work.request
    return _with_options(command, work.request, work.summary)


def _with_options(command: Callable[..., _T], request: Callable[..., object], summary: str) -> Callable[..., _T]:
    """The command with the options of what makes its request, and its help. typer reads both from the function."""
    own = [each for each in inspect.signature(request, eval_str=True).parameters.values() if _is_option(each)]
    common = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*common[:2], *own, *common[2:])]
    command.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    command.__doc__ = summary
    return command


def _is_option(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY


def run_local_command(name: str) -> None:
    """Run the command of a work, as the report names it: `python -m src.train`. It runs on this machine by default."""
    run_command(command_of(WORKS[name], "local"))


def _pipeline(
    config: ConfigOption = "",
    cluster: ClusterOption = None,
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
    max_slice_hours: HoursOption = None,
    # Only the job that SLURM starts between two stages passes it.
    advance: Annotated[str | None, typer.Option("--advance", metavar="PIPELINE", hidden=True)] = None,
    **options: Any,
) -> None:
    from hpc.pipeline.advance import advance_at, start_pipeline

    if advance:
        advance_at(Path(advance))
        return
    asked = PIPELINE.ask(config, set_ or [], **options)
    start_pipeline(asked, cluster, max_slice_hours=max_slice_hours, fresh=fresh, new_code=new_code)


for _work in _COMMANDS.values():
    app.command(_work.name.replace("_", "-"))(command_of(_work))
app.command("pipeline")(_with_options(_pipeline, PIPELINE.ask, PIPELINE.summary))


@app.command()
def plan(
    kind: Annotated[
        str, typer.Argument(metavar="COMMAND", help=f"The command to plan: {'|'.join(_COMMANDS).replace('_', '-')}.")
    ] = "grid",
    config: ConfigOption = "",
    cluster: ClusterOption = None,
    trust: TrustOption = False,
    set_: SetOption = None,
) -> None:
    """Show what a command would submit. The same as its --dry-run."""
    from relay.errors import RunError

    work = _COMMANDS.get(kind.replace("-", "_"))
    if work is None:
        raise RunError(f"plan {kind}: no such command; choose from {', '.join(_COMMANDS).replace('_', '-')}")
    command_of(work)(config=config, cluster=cluster, set_=set_, dry_run=True)
