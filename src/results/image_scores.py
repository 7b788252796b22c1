"""The scores of settings image by image, in groups of settings that were measured on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.results.seeds import SettingResults
from src.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The score of each image, by selecting metric: higher is better, float (N,).
SCORES: dict[str, Callable[[Predictions], NDArray[np.float64]]] = {
    "accuracy": lambda found: found.correct.astype("float64"),
    "top5_accuracy": lambda found: found.in_top5.astype("float64"),
    "loss": lambda found: -found.loss,
}


@dataclass(frozen=True)
class ImageGroup:
    """Settings that were measured on the same images.

    `members`: their numbers among all settings. `runs`: the numbers of their runs among all runs, setting by setting.
    `scores`: float (N, runs). `means`: over the seeds of each setting, float (N, members).
    """

    members: Sequence[int]
    runs: Sequence[int]
    scores: NDArray[np.float32]
    means: NDArray[np.float32]


def read_groups(
    settings: Sequence[SettingResults],
    score_of: Callable[[Predictions], NDArray[np.float64]],
    predictions_of: Callable[[str], Predictions | None],
) -> list[ImageGroup] | None:
    """The groups, that of the first setting first; None if a run has no predictions, or the runs of one setting were
    measured on different images.
    """
    columns: dict[tuple[str, int], dict[int, list[NDArray[np.float32]]]] = {}
    for number, each in enumerate(settings):
        found = [predictions_of(str(row["run"])) for row in each.rows]
        first = found[0]
        if first is None or any(other is None or not first.same_images(other) for other in found):
            return None
        columns.setdefault((first.images, len(first.label)), {})[number] = [
            score_of(one).astype("float32") for one in found if one
        ]
    return [_group(settings, members) for members in columns.values()]


def kept_of(
    groups: Sequence[ImageGroup], settings: Sequence[SettingResults], kept: Sequence[int]
) -> tuple[list[SettingResults], list[ImageGroup]]:
    """The settings with the numbers `kept`, numbered anew, and their groups."""
    place = {number: new for new, number in enumerate(kept)}
    chosen = [settings[number] for number in kept]
    remaining = []
    for group in groups:
        columns = _columns(settings, group)
        members = {place[number]: columns[number] for number in group.members if number in place}
        if members:
            remaining.append(_group(chosen, members))
    return chosen, remaining


def _columns(settings: Sequence[SettingResults], group: ImageGroup) -> dict[int, list[NDArray[np.float32]]]:
    found, start = {}, 0
    for number in group.members:
        end = start + len(settings[number].values)
        found[number] = [group.scores[:, column] for column in range(start, end)]
        start = end
    return found


def _group(settings: Sequence[SettingResults], members: dict[int, list[NDArray[np.float32]]]) -> ImageGroup:
    import numpy as np

    starts = np.cumsum([0, *(len(each.values) for each in settings)])
    runs = [run for number in members for run in range(starts[number], starts[number + 1])]
    means = np.stack([np.mean(columns, axis=0) for columns in members.values()], axis=1)
    return ImageGroup(list(members), runs, np.stack([c for own in members.values() for c in own], axis=1), means)
