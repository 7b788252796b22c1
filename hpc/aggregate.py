"""`python -m hpc.aggregate`: tables and figures of sweeps, from the files of their runs. It never asks SLURM."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from relay import hints
from relay.cli import ConfigOption, SetOption, run_command
from relay.errors import RelayError, RunError
from relay.log import log
from relay.runs.rundir import SweepDir
from relay.text import shortlist

if TYPE_CHECKING:
    from relay.config.sections import Paths
    from relay.results.tables.ranking import Direction
    from relay.results.tables.view import View


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SWEEP|DIR]...",
            help="Sweeps (a unique part of the name is enough), or directories of TensorBoard event files that any "
            "program wrote. Default: all sweeps.",
        ),
    ] = None,
    config: ConfigOption = "",
    set_: SetOption = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Show only these rows. May be repeated.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Show the rows in this order; --sort=-COLUMN: descending.")
    ] = None,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Show the first N rows.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B,...", help="Show these columns.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Rank by this column of a sweep, or this tag of another program's logs."),
    ] = None,
    direction: Annotated[
        Literal["min", "max"] | None,
        typer.Option(help="Which values of --metric are better. Default: what its name says, else max."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what is shown to DIR, and nothing into the sweep's directory."),
    ] = None,
    suffix: Annotated[
        Literal["png", "svg", "pdf"],
        typer.Option("--format", help="Of the figures that are drawn from the table."),
    ] = "png",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per sweep, and write nothing.")
    ] = False,
    as_pair: Annotated[
        bool,
        typer.Option(
            "--pair",
            help="Compare two runs, or two sweeps, on the images that both predicted, and their configurations. "
            "Nothing is written.",
        ),
    ] = False,
) -> None:
    """Collect the results of sweeps: print the table, and write table.csv, table.md, table.parquet and figures.

    The best runs come first. The files of a sweep always hold all its rows; the options say what is shown.
    """
    from relay.config.paths import load_paths
    from relay.results.tables.view import View

    if as_json and out:
        raise RunError("--json writes no file, so it cannot be combined with --out; leave one of them out")
    if direction and not metric:
        raise RunError(f"--direction {direction} says which values of --metric are better: give --metric TAG, too")
    paths = load_paths(config, set_ or ())
    if as_pair:
        given = {"--where": where, "--sort": sort, "--top": top, "--columns": columns, "--out": out}
        if not_for_pairs := [option for option, value in given.items() if value]:
            raise RunError(f"--pair shows one comparison and no table: leave out {', '.join(not_for_pairs)}")
        _show_pair(names or (), paths.runs, metric, direction, as_json=as_json)
        return
    view = View(where or (), sort, top, columns.split(",") if columns else ())
    chosen = _named(names, paths.runs)
    read_only = [] if as_json or out or metric else [each for each in chosen if not _may_write(each)]
    if read_only:
        raise RunError(
            f"{shortlist([each.name for each in read_only])}: you may read but not write there, so no table can be "
            f"kept beside the runs; to write to a folder of your own: {hints.again('--out', 'DIR')}; to write nothing: "
            f"{hints.again('--json')}"
        )
    failed = []
    for each in chosen:
        folder = out / each.name if out and len(chosen) > 1 else out
        try:
            _show(each, paths, view, folder, metric, direction, suffix, as_json=as_json)
        except RelayError as error:
            if len(chosen) == 1:
                raise
            log.error(f"{each.name}: {error}")
            failed.append(each.name)
    if failed:
        raise RunError(f"not all is shown of {shortlist(failed)}; the errors are above")


def _named(names: Sequence[str] | None, runs_dir: Path) -> list[SweepDir | Path]:
    from relay.runs.names import find_named
    from relay.runs.sweeps import sweeps, with_whole_manifests

    for name in names or ():
        # A sweep may be given by its folder, too; other names have no slash.
        if "/" in name and not Path(name).is_dir():
            raise RunError(f"{name}: no such directory; give a directory of TensorBoard event files, or a sweep's name")
    if names:
        return [Path(name) if _is_foreign(Path(name), runs_dir) else find_named(runs_dir, name)[0] for name in names]
    # Without any sweep, find_named raises RunError with the command that starts the first runs.
    return list(with_whole_manifests(sweeps(runs_dir))) or [find_named(runs_dir, None)[0]]


def _may_write(source: SweepDir | Path) -> bool:
    # What is made of another program's logs goes to artifacts.
    return not isinstance(source, SweepDir) or os.access(source.path, os.W_OK)


def _show_pair(
    names: Sequence[str], runs_dir: Path, metric: str | None, direction: Direction | None, *, as_json: bool
) -> None:
    from relay.results.collection import answer_of_sweep
    from relay.results.pairing import Side, pair
    from relay.runs.names import find_named

    if len(names) != 2:
        raise RunError(f"--pair compares two runs or two sweeps, and {len(names)} were named: give A and B")
    found = [find_named(runs_dir, name) for name in names]
    sides = [Side(sweep, run, answer_of_sweep(sweep, metric, direction)) for sweep, run in found]
    pairing = pair(*sides)
    if as_json:
        print(json.dumps(pairing.json()))
    else:
        pairing.show()


def _is_foreign(path: Path, runs_dir: Path) -> bool:
    """Whether it is a directory outside `runs_dir` that is no sweep."""
    ours = path.resolve().is_relative_to(runs_dir.resolve()) or SweepDir(path).meta_file.is_file()
    return path.is_dir() and not ours


def _show(
    source: SweepDir | Path,
    paths: Paths,
    view: View,
    out: Path | None,
    metric: str | None,
    direction: Direction | None,
    suffix: str,
    *,
    as_json: bool,
) -> None:
    from hpc.submission.outcome import show_outcome
    from relay.results.collection import answer_of_logs, answer_of_sweep, collect_into, curves_of_sweep
    from relay.results.output import answer_json

    artifacts = paths.artifacts
    if isinstance(source, SweepDir) and not (as_json or out or metric):
        show_outcome(source, paths, view, suffix)
        return
    if isinstance(source, SweepDir):
        answer = answer_of_sweep(source, metric, direction)
        column = answer.table.select.column
        curves = curves_of_sweep(source, column)
        # Never into the sweep's directory, whose files are of the metric by which its runs were chosen.
        folder = artifacts / f"{source.name}_by_{column.replace('/', '_')}"
    else:
        answer, curves = answer_of_logs(source, metric, direction)
        # Never into the directory, which belongs to another program.
        folder = artifacts / answer.table.name
    if as_json:
        print(json.dumps(answer_json(answer, view.of(answer.rows()))))
    else:
        collect_into(answer, view, out or folder, curves, suffix)


if __name__ == "__main__":
    run_command(main)
