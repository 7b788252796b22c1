"""The settings over their seeds: means with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.results.statistics.intervals import LEVEL, around
from src.results.statistics.noise import Noise
from src.results.tables.table import SettingResults, Table
from src.runs.axes import SEED_AXIS


def seed_rows(table: Table, settings: Sequence[SettingResults], noise: Noise) -> list[dict[str, Any]]:
    """One row per setting, the best mean first; [] if the seed is no axis.

    Columns: the axes but the seed, `n` seeds, and `mean`, `sd`, `low`, `high` of the selecting metric. The interval
    (95 %) is that of new seeds and, with results per image, of new images; the spread between seeds is pooled over the
    settings. `noise`: that of the settings, in their order.
    """
    if SEED_AXIS not in table.axes:
        return []
    select, found = table.select, []
    halves = noise.half_widths(LEVEL) if noise.spread.degrees else None
    images = noise.images() * noise.seeds
    for number, each in enumerate(settings):
        low, high = None, None
        if halves is not None:
            half, most = float(halves[number]), float(images[number])
            # Not around the mean, which has the luck of the best epochs.
            low, high = around(select.score(float(noise.values[number])), half, is_share=select.is_share, n=most)
        axes = {axis: each.rows[0].get(axis) for axis in table.axes if axis != SEED_AXIS}
        found.append({**axes, "n": len(each.values), "mean": each.mean, "sd": each.sd, "low": low, "high": high})
    return found
