"""`python -m src.evaluate --config C --checkpoint P`: measures a checkpoint on val or test, on this machine."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from typing import Annotated, Any

import typer

from hpc.commands.submit import command_of
from hpc.works import WORKS
from relay import hints
from relay.cli import run_command
from relay.errors import RunError
from relay.files import read_json

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and everything else on stderr.")]
_evaluate = command_of(WORKS["evaluate"], "local")


def main(*, as_json: bool, **options: Any) -> None:
    """Measure a checkpoint of this project, or of the report's program."""
    if not as_json:
        _evaluate(**options)
        return
    with contextlib.redirect_stdout(sys.stderr):
        sweep = _evaluate(**options)
    if sweep:
        (run,) = sweep.runs()
        result = run.result()
        if result is None:
            state = hints.command("hpc.launch", "status", sweep.name)
            raise RunError(f"--json: {run.label} is not done yet; to see its state: {state}")
        print(json.dumps({**(read_json(run.evaluation_file) or {}), **result}))


_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)
_own = inspect.signature(_evaluate).parameters.values()
main.__signature__ = inspect.Signature([*_own, _json])  # type: ignore[attr-defined]

if __name__ == "__main__":
    run_command(main)
