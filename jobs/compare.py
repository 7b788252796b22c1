"""`compare`: the base training and its variants, each in full; or, without any, the cells of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jobs.grid import execute
from jobs.images import DECIDING, load, preload
from jobs.program import request_of_program
from relay.projects.kind import is_program
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request
from relay.work import Work

if TYPE_CHECKING:
    from relay.config.sections import Paths
    from relay.results.answer import Answer


def request(config: str, set_: Sequence[str]) -> Request | Callable[[], None]:
    """The base and each variant. Without variants, nothing is trained: the best cell of the grid is shown with its
    neighbours.
    """
    if is_program(config):
        return request_of_program(config, set_, "compare")
    from src.outcomes.comparison import show_neighbours
    from src.requests import compare_request

    loaded = load(config, set_)
    return compare_request(loaded) if loaded.compare.variants else lambda: show_neighbours(loaded, None)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Print the differences to the base, beside what was expected, and draw the curves."""
    from src.outcomes.showing import show_comparison

    show_comparison(sweep, paths, answer)


COMPARE = Work(
    "compare",
    "Train the base and each variant in full, as one SLURM array, and compare them.\n\n"
    "The variants are those of the config's section compare. A finished training of the same configuration is reused. "
    "How many will be trained is printed first, and with --dry-run that is all. Without that section, nothing is "
    "trained: the best cell of the grid is compared with its neighbours.",
    request,
    execute,
    preload,
    show,
    DECIDING,
    reuses=True,
)
