"""The commands of `python -m hpc.launch`, and the options that they share."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc.submission.trust import trust_others

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="PROFILE",
        show_default=False,
        help="A profile: a name in clusters/ or configs/clusters/, or a YAML file. Default of the commands in src: "
        "local; of those of hpc.launch: the sweep's own; for new runs that of the newest sweep on the same data, else "
        "RELAY_CLUSTER, else h100-mig if this machine has sbatch, or local.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        callback=trust_others,
        help="Execute the code and the profile of a sweep even if they belong to another user.",
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
