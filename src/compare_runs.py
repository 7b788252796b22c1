"""`python -m src.compare_runs [SWEEP] --config C`: what did each change do? (M7 of the report)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from hpc.commands.submit import command_of
from hpc.works import WORKS
from relay.cli import run_command
from relay.errors import ConfigError

SweepArgument = Annotated[
    str | None,
    typer.Argument(metavar="SWEEP", help="A finished comparison or grid to show, instead of training anything."),
]
_compare = command_of(WORKS["compare"], "local")


def main(*, sweep: str | None = None, config: str = "configs/config.yaml", **options: Any) -> None:
    """Compare trainings: those of the config's section compare, or the best cell of a grid with its neighbours.

    With a section compare, the base training and each variant of it are trained in full, one after the other; a
    finished training of the same configuration is reused. Ctrl-C stops with the state saved. Without that section,
    nothing is trained: the best cell of the configuration's newest grid is compared with the cells that differ from it
    in one value.
    """
    if sweep is None:
        _compare(config=config, **options)
        return
    unused = [name for name in ("dry_run", "here", "fresh", "new_code", "max_slice_hours") if options.get(name)]
    if unused:
        raise ConfigError(f"--{unused[0].replace('_', '-')}: has no effect with {sweep}, which is only shown; omit it")
    _show(sweep, config, options.get("set_") or ())


def _show(sweep: str, config: str, overrides: Sequence[str]) -> None:
    from relay.results.collection import answer_of_sweep
    from relay.runs.names import find_named
    from src.config.loading import load_config
    from src.outcomes.comparison import show_neighbours
    from src.outcomes.showing import show_comparison

    loaded = load_config(config, overrides)
    named = find_named(loaded.paths.runs, sweep)[0]
    if named.kind == "compare":
        # An expectation that was edited since the runs were planned counts: it changes none of them.
        show_comparison(named, loaded.paths, answer_of_sweep(named), loaded.compare.variants)
    else:
        show_neighbours(loaded, named)


_sweep = inspect.Parameter("sweep", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SweepArgument)
_own = inspect.signature(_compare).parameters.values()
main.__signature__ = inspect.Signature([_sweep, *_own])  # type: ignore[attr-defined]

if __name__ == "__main__":
    run_command(main)
