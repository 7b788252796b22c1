"""The commands for submitted runs and for the site: status, logs, cancel, retry, doctor, verify and tensorboard."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc.commands import ClusterOption, NameArgument, TrustOption
from relay.cli import ConfigOption, NewCodeOption, SetOption, make_app
from relay.errors import ConfigError

app = make_app()
_WATCH_EVERY_S = 10.0


@app.command()
def status(
    name: NameArgument = None,
    config: ConfigOption = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh until nothing is queued or running. Stop with Ctrl-C.")
    ] = False,
    every_s: Annotated[
        float | None,
        typer.Option("--every", min=1, metavar="SECONDS", help="Like --watch, with this interval. Default: 10."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Show the state of runs. For a pipeline, show its stages."""
    from hpc.monitor.status import show_status
    from relay.config.paths import load_paths

    show_status(load_paths(config, set_ or ()), name, every_s or (_WATCH_EVERY_S if watch else None))


@app.command()
def logs(
    name: NameArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines as they come, also from later attempts.")
    ] = False,
    config: ConfigOption = "",
    set_: SetOption = None,
) -> None:
    """Print what a run logged, in all its attempts. For a pipeline, print the logs of the jobs that continue it."""
    from hpc.monitor.logs import show_logs
    from relay.config.paths import load_paths

    show_logs(load_paths(config, set_ or ()), name, follow=follow)


@app.command()
def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP|RUN|PIPELINE|all", help="The name as status takes it, or all.")],
    config: ConfigOption = "",
    set_: SetOption = None,
) -> None:
    """Stop queued and running tasks. Running tasks save first; the command that submitted them continues them."""
    from hpc.monitor.cancel import cancel_runs
    from relay.config.paths import load_paths

    cancel_runs(load_paths(config, set_ or ()), name)


@app.command()
def retry(
    name: NameArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry all failed runs of the sweep.")] = False,
    cause: Annotated[
        str | None,
        typer.Option("--cause", metavar="CAUSE", help="Retry only runs that failed for this cause, such as CRASHED."),
    ] = None,
    config: ConfigOption = "",
    cluster: ClusterOption = None,
    set_: SetOption = None,
    new_code: NewCodeOption = False,
    trust: TrustOption = False,
) -> None:
    """Submit failed runs again and reset their budgets. If you fixed the code, add --new-code."""
    from hpc.monitor.retry import retry as retry_runs
    from relay import hints
    from relay.config.paths import load_paths
    from relay.errors import RunError

    if not (failed or cause or (name and "/" in name)):
        raise RunError(
            "retry: name a run as SWEEP/RUN, or give --cause CAUSE; "
            f"to retry all failed runs of the sweep: {hints.again('--failed')}"
        )
    retry_runs(load_paths(config, set_ or ()), name, cluster, cause, new_code=new_code)


@app.command()
def doctor(
    config: ConfigOption = "",
    cluster: ClusterOption = None,
    no_node: Annotated[
        bool, typer.Option("--no-node", help="Skip the checks on a node, which may have to wait in the queue.")
    ] = False,
    trust: TrustOption = False,
    set_: SetOption = None,
) -> None:
    """Check this site. Prints one page: what fits the profile, what does not, and how to fix it."""
    import sys

    from hpc.doctor.page import show_doctor
    from hpc.works import usual_request

    sys.exit(show_doctor(usual_request(config, set_ or []), cluster, node=not no_node))


@app.command()
def verify(
    config: ConfigOption = "",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=4, help="How many steps to make. Default: 60 of a program, 6 small ones of images."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another number chooses other steps to stop and to kill at.")] = 0,
    cluster: ClusterOption = None,
    set_: SetOption = None,
) -> None:
    """Prove that the run may be interrupted: stop it and kill it, and compare with one that nothing has disturbed.

    It makes a few steps on this machine, or with --cluster in one job on a slice. Exit code 0 only if all is equal, bit
    for bit.
    """
    import sys

    from hpc.submission.placement import place
    from hpc.verify.page import show_verify
    from hpc.works import verify_request

    request, usual = verify_request(config, set_ or [])
    if steps and not usual:
        raise ConfigError("--steps: a command makes as many as its parameters say; give fewer with verify.params")
    placement = place(request.runs_dir, cluster, None, request.inputs)
    if cluster and placement.profile.executor == "slurm":
        from hpc.verify.job import verify_in_a_job

        # It is prepared here: a node may have no network.
        request.prepare(False)
        sys.exit(verify_in_a_job(config, set_ or [], steps, seed, placement))
    sys.exit(show_verify(request, steps or usual, seed, placement.profile))


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="FOLDER", help="The folder to make, or, with --command, that of the code.")
    ],
    command: Annotated[
        str | None, typer.Option("--command", help="A script that is there, as it is called here: python train.py.")
    ] = None,
) -> None:
    """Write a project that runs, with a training function and a relay.yaml that explains each key.

    With --command, only the relay.yaml of an existing script, with the parameters that its --help shows.
    """
    from hpc.commands.new import make_configuration, make_project

    if command is None:
        make_project(name)
    else:
        make_configuration(name, command)


@app.command()
def tensorboard(
    name: Annotated[
        str | None, typer.Argument(metavar="SWEEP|RUN", help="The name as status takes it. Default: all runs.")
    ] = None,
    config: ConfigOption = "",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="The port of the web page. Default: 6006, or a free one."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Start TensorBoard on this machine, on all runs or on one sweep, and print how to reach it."""
    from hpc.monitor.tensorboard import show_tensorboard
    from relay.config.paths import load_paths

    show_tensorboard(load_paths(config, set_ or ()), name, port)
