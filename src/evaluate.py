"""`python -m src.evaluate --config C --checkpoint P`: measures a checkpoint on val or test, in this process."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from src.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    config: ConfigOption = "configs/config.yaml",
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="FILE", help="Default: artifacts/best.ckpt.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="val|test", help="The split to measure.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    set_: SetOption = None,
) -> None:
    """Measure a checkpoint of this project, or of the report's program."""
    from src.config.loading import load_config
    from src.files import read_json
    from src.outcome import show_outcome
    from src.requests import evaluation_request
    from src.results.evaluation import METRICS
    from src.results.terminal import print_rows

    loaded = load_config(config, overrides_of(set_, evaluation__checkpoint=checkpoint, evaluation__split=split))
    request = evaluation_request(loaded)

    # torch takes seconds to import: only once the request is known to be valid.
    from src.runner import open_and_run
    from src.training.evaluation import evaluate
    from src.training.pretrained import check_fits

    check_fits(request.config)
    sweep = open_and_run(request, evaluate, fresh=True)
    run = sweep.runs()[0]
    result = run.result() or {}
    if as_json:
        print(json.dumps({**(read_json(run.evaluation_file) or {}), **result}))
        return
    intervals = result.get("intervals") or {}
    rows = [
        {"metric": name, "value": result.get(name), "low": low, "high": high}
        for name in METRICS
        for low, high in [intervals.get(name, (None, None))]
    ]
    print_rows(rows, f"{result['split']}: n {result['n']}, 95 % intervals")
    show_outcome(sweep, loaded)


if __name__ == "__main__":
    run_command(main)
