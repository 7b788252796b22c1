"""`python -m hpc.launch COMMAND`, and bin/relay: the command line.

It runs on the login node, where users share a few cores: each command imports what it needs when it is called.
"""

from __future__ import annotations

from hpc import aggregate
from hpc.commands import manage, submit
from relay import hints
from relay.cli import make_app, run_app

app = make_app(
    no_args_is_help=True,
    help="Submit runs to a cluster, watch them, and stop or retry them. A project to begin with: new FOLDER."
    + (" Of experiments on images, also: checks, report." if hints.relay_command() else ""),
)
# Without a name, their commands become commands of this app.
app.add_typer(submit.app)
app.add_typer(manage.app)
app.command("aggregate")(aggregate.main)

if __name__ == "__main__":
    run_app(app)
