"""The scores of settings image by image, in groups of settings that were measured on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.results.tables.table import SettingResults
from relay.runs.predictions import Predictions

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


@dataclass(frozen=True)
class ImageScores:
    """The `groups`, that of the first setting first. `crossed`: whether each image was scored at an epoch that it did
    not select.
    """

    groups: Sequence[ImageGroup]
    crossed: bool


def read_scores(
    settings: Sequence[SettingResults], metric: str, predictions_of: Callable[[str], Predictions | None]
) -> ImageScores | None:
    """The scores of all runs; None if the metric is no mean over images, a run has no predictions or no finite ones, or
    the runs of one setting were measured on different images. `predictions_of`: from a run's name.
    """
    import numpy as np

    score_of = SCORES.get(metric)
    if score_of is None:
        return None
    columns: dict[tuple[str, int], dict[int, list[NDArray[np.float32]]]] = {}
    crossed = True
    for number, each in enumerate(settings):
        images = None
        for row in each.rows:
            found = predictions_of(str(row["run"]))
            if found is None or len(found.label) < 2 or images not in (None, (found.images, len(found.label))):
                return None
            images = found.images, len(found.label)
            crossed = crossed and found.crossed is not None
            scores = score_of(found.crossed or found).astype("float32")
            if not np.isfinite(scores).all():
                return None
            columns.setdefault(images, {}).setdefault(number, []).append(scores)
    starts = np.cumsum([0, *(len(each.rows) for each in settings)])
    return ImageScores([_group(members, starts) for members in columns.values()], crossed)


def kept_of(groups: Sequence[ImageGroup], kept: Sequence[int]) -> list[ImageGroup]:
    """The groups of the settings with the numbers `kept`, numbered anew; of their runs, only the means remain."""
    place = {number: new for new, number in enumerate(kept)}
    remaining = []
    for group in groups:
        columns = [column for column, number in enumerate(group.members) if number in place]
        if columns:
            members = [place[group.members[column]] for column in columns]
            means = group.means[:, columns]
            remaining.append(ImageGroup(members, members, means, means))
    return remaining


def _group(members: dict[int, list[NDArray[np.float32]]], starts: NDArray[np.int64]) -> ImageGroup:
    import numpy as np

    runs = [run for number in members for run in range(starts[number], starts[number + 1])]
    scores = np.stack([column for own in members.values() for column in own], axis=1)
    single = len(runs) == len(members)
    means = scores if single else np.stack([np.mean(own, axis=0) for own in members.values()], axis=1)
    return ImageGroup(list(members), runs, scores, means)
