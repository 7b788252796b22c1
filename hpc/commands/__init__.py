"""The commands of `python -m hpc.launch`, and the options that they share."""

from __future__ import annotations

from typing import Annotated

import typer

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="PROFILE",
        help="A profile: a name in configs/clusters/, or a YAML file. "
        "Default: the sweep's own profile; for new runs h100-mig if this machine has sbatch, else local.",
    ),
]
NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SWEEP|RUN|PIPELINE",
        help="A sweep, a run (SWEEP/RUN), a pipeline or one of its stages (PIPELINE/STAGE). "
        "A unique part of the name is enough. Default: the newest.",
    ),
]
