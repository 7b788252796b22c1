"""The figures of a grid: effects, heat map, parallel coordinates, curves of the best and the worst, rank correlation.

The best cell is marked in each. What cannot be drawn, such as a heat map of a single axis, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.figures import (
    ACCENT,
    MUTED,
    PALETTE,
    SCALE,
    drawing,
    in_legend,
    in_lines,
    label_of,
    new_figure,
    save_figure,
    short_names,
    ticks_between,
    whole_ticks,
)
from relay.results.answer import Answer
from relay.results.statistics.design import levels_of
from relay.results.statistics.early import Curve, epochs_trained, how_early
from relay.results.statistics.effects import Effects, Level, shown_level
from relay.results.tables.table import Row, Table
from relay.runs.cells import axis_key

# Side by side; more would be too small on a telephone.
_MOST_PANELS = 3
# An axis with more levels than these is left out: nobody could read it. effects.md has all of them.
_MOST_LEVELS = 24
# More values than these do not fit into a heat map.
_MOST_PRINTED = 150
# More lines than these hide each other, and take long to draw: every second, third, ... run is shown.
_MOST_LINES = 100
# The best cells, then the worst ones.
_SHOWN = 3
_COLOURS = (ACCENT, PALETTE[0], PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5])
# Behind a text that lines cross.
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}


def draw_grid(answer: Answer, curves: Mapping[str, Curve], folder: Path, suffix: str = "png") -> list[Path]:
    """Draw all figures that the data allow into `folder`, as png, svg or pdf, and return their paths.

    `curves`: by the name of the run, its epochs and the values of the selecting metric.
    """
    table = answer.table
    drawn = [
        draw_effects(answer, folder / f"effects.{suffix}"),
        draw_heatmap(answer, folder / f"heatmap.{suffix}"),
        draw_parallel(answer, folder / f"parallel.{suffix}"),
        draw_best_and_worst(table, curves, folder / f"curves.{suffix}"),
        draw_rank_correlation(table, curves, folder / f"rank_correlation.{suffix}"),
    ]
    return [path for path in drawn if path]


@drawing
def draw_effects(answer: Answer, path: Path) -> Path | None:
    """Draw the mean per level of each axis with its 95 % interval, and mark the levels of the best setting."""
    table, effects, best = answer.table, answer.effects, answer.best()
    if effects is None or best is None:
        return None
    shown = {axis: levels for axis, levels in effects.levels.items() if len(levels) <= _MOST_LEVELS}
    if not shown:
        return None
    columns = min(len(shown), _MOST_PANELS)
    lines = math.ceil(len(shown) / columns)
    figure = new_figure(max(4.5, 1.9 * columns + 0.6), (3.4 if lines == 1 else 2.9) * lines)
    panels: Any = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (axis, levels) in zip(panels.flat, shown.items(), strict=False):
        means = [level.mean for level in levels]
        axes.plot(range(len(levels)), means, color=PALETTE[0], linewidth=1.0, linestyle=":")
        for x, level in enumerate(levels):
            mine = axis_key(level.value) == axis_key(best.rows[0].get(axis))
            reach = level.interval and [[means[x] - level.interval[0]], [level.interval[1] - means[x]]]
            colour, marker = (ACCENT, "D") if mine else (PALETTE[0], "o")
            axes.errorbar(x, means[x], yerr=reach, color=colour, marker=marker, capsize=4, linestyle="none")
        _name_levels(axes, levels)
        axes.set(xlabel=in_lines(axis, 16), xlim=(-0.5, len(levels) - 0.5))
        axes.grid(axis="y")
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for line in panels:
        # In two lines: the axis is short.
        line[0].set_ylabel(f"mean {label_of(table.select.column)}".replace(" (", "\n("))
    known = "with 95 % intervals" if effects.noise is not None else "one run per cell, no intervals"
    title = f"{table.name}: mean per level,\n{known}; diamond: the best setting"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return save_figure(figure, path)


def _name_levels(axes: Any, levels: Sequence[Level]) -> None:
    labels = short_names([level.shown for level in levels])
    long = sum(len(label) for label in labels) > 16
    axes.set_xticks(range(len(levels)), labels, rotation=30 if long else 0, ha="right" if long else "center")


@drawing
def draw_heatmap(answer: Answer, path: Path) -> Path | None:
    """Draw the mean for each combination of the pair of axes that explains most of the variance together."""
    import numpy as np
    from matplotlib.patches import Rectangle

    table, effects, best = answer.table, answer.effects, answer.best()
    pair = _strongest_pair(effects) if effects else None
    if pair is None or best is None:
        return None
    rows = [row for row in table.ranked if table.is_comparable(row)]
    levels = _levels(rows, pair)
    # The axis with more levels goes along the wider side.
    down, across = sorted(pair, key=lambda axis: len(levels[axis]))
    at = [_places(rows, axis, levels[axis]) for axis in (down, across)]
    means = np.full((len(levels[down]), len(levels[across])), np.nan)
    values = np.array([row[table.select.column] for row in rows], dtype=float)
    for y, x in np.ndindex(means.shape):
        here = (np.array(at[0]) == y) & (np.array(at[1]) == x)
        means[y, x] = values[here].mean() if here.any() else np.nan
    height, width = means.shape
    figure = new_figure(max(6.0, 0.75 * width + 3.0), max(3.6, 0.55 * height + 1.6))
    axes: Any = figure.add_subplot()
    scale = SCALE if table.select.direction == "max" else f"{SCALE}_r"
    image = axes.imshow(np.ma.masked_invalid(means), cmap=scale, aspect="auto", interpolation="nearest")
    figure.colorbar(image, label=f"mean {label_of(table.select.column)}")
    for y, x in np.ndindex(means.shape):
        if np.isnan(means[y, x]):
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", edgecolor=MUTED, linewidth=0))
        elif means.size <= _MOST_PRINTED:
            red, green, blue, _ = image.cmap(image.norm(means[y, x]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axes.text(
                x, y, f"{means[y, x]:#.3g}".rstrip("."), ha="center", va="center", color="white" if dark else "black"
            )
    (y,), (x,) = (_places(best.rows[:1], axis, levels[axis]) for axis in (down, across))
    axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=ACCENT, linewidth=3))
    axes.set_xticks(range(width), short_names([shown_level(level) for level in levels[across]]))
    axes.set_yticks(range(height), short_names([shown_level(level) for level in levels[down]], 20))
    hatched = "; hatched: no runs" if np.isnan(means).any() else ""
    axes.set(xlabel=across.replace("_", " "), ylabel=down.replace("_", " "))
    axes.set_title(f"{table.name}: mean per pair of levels\nframed: the best setting{hatched}", fontsize=10)
    axes.spines[:].set_visible(False)
    return save_figure(figure, path)


def _strongest_pair(effects: Effects) -> tuple[str, ...] | None:
    shares = {effect.axes: effect.share or 0.0 for effect in effects.terms}
    few = {axis for axis, levels in effects.levels.items() if len(levels) <= _MOST_LEVELS}
    pairs = [axes for axes in shares if len(axes) == 2 and few.issuperset(axes)]
    return max(pairs, key=lambda axes: shares[axes] + sum(shares[axis,] for axis in axes), default=None)


def _levels(rows: Sequence[Row], axes: Iterable[str]) -> dict[str, list[Any]]:
    """The values of each axis, in order, also of those that failed too often to be compared."""
    return {axis: levels_of([row.get(axis) for row in rows]) for axis in axes}


def _places(rows: Sequence[Row], axis: str, levels: Sequence[Any]) -> list[int]:
    """The number of the level of each row on an axis."""
    numbers = {axis_key(level): number for number, level in enumerate(levels)}
    return [numbers[axis_key(row.get(axis))] for row in rows]


@drawing
def draw_parallel(answer: Answer, path: Path) -> Path | None:
    """Draw a line per run through its level on each axis to its result; on the last axis, up is better. The runs of the
    best setting are marked.
    """
    import matplotlib
    import numpy as np

    table, effects, best = answer.table, answer.effects, answer.best()
    if effects is None or best is None:
        return None
    comparable = [row for row in table.ranked if table.is_comparable(row)]
    rows = _thinned(comparable)
    scores = np.array([table.select.score(row[table.select.column]) for row in rows])
    low, high = float(scores.min()), float(scores.max())
    heights = (scores - low) / ((high - low) or 1)
    levels_by_axis = _levels(rows, effects.levels)
    lines = np.empty((len(rows), len(levels_by_axis) + 1))
    lines[:, -1] = heights
    chosen = [number for number, row in enumerate(rows) if any(row is own for own in best.rows)]
    figure = new_figure(max(6.0, 1.15 * len(levels_by_axis) + 1.2), 4.4)
    axes: Any = figure.add_subplot()
    for number, (axis, levels) in enumerate(levels_by_axis.items()):
        places, positions = np.array(_places(rows, axis, levels)), np.linspace(0.14, 0.86, len(levels))
        # Runs of one level are fanned out, the better ones above, or their lines would hide each other.
        names = short_names([shown_level(level) for level in levels], 12)
        band = min(0.14, 0.3 * (positions[1] - positions[0])) if len(levels) > 1 else 0.14
        for place, position in enumerate(positions):
            members = np.flatnonzero(places == place)
            lines[members, number] = position + np.linspace(band, -band, len(members)) * (len(members) > 1)
            # Of many levels, every few are named.
            if place % math.ceil(len(levels) / _MOST_LEVELS) == 0:
                axes.text(number - 0.07, position, names[place], ha="right", va="center", fontsize=9, bbox=_PAPER)
        # The marked runs meet their level, and not the edge of its fan.
        lines[chosen, number] = positions[places[chosen]]
    # Not to the end of the scale, whose yellow would draw the eye to the worst run.
    # In steps: fewer colours make a smaller file.
    colours = matplotlib.colormaps[SCALE](0.85 * (1 - np.round(heights * 6) / 6))
    for line, colour in reversed(list(zip(lines, colours, strict=True))):
        axes.plot(range(len(line)), line, color=colour, linewidth=1.1, linestyle="-")
    several = f"{len(best.rows)} seeds of the best setting, mean {best.mean:.3g}"
    label = in_legend(several if len(best.rows) > 1 else best.name)
    for number in chosen:
        axes.plot(range(lines.shape[1]), lines[number], color=ACCENT, linewidth=3, linestyle="-", label=label)
        label = "_"
    for place in np.linspace(0, 1, 5):
        value = table.select.score(low + place * (high - low))
        axes.text(lines.shape[1] - 0.95, place, f"{value:.3g}", va="center", fontsize=8.5)
    for number in range(lines.shape[1]):
        axes.axvline(number, color=MUTED, linewidth=0.8, linestyle="-", zorder=0)
    shown = str(len(rows)) if len(rows) == len(comparable) else f"{len(rows)} of {len(comparable)}"
    titles = [in_lines(axis) for axis in levels_by_axis] + [in_lines(label_of(table.select.column), 14)]
    axes.set_xticks(range(len(titles)), titles)
    axes.set(xlim=(-0.6, len(titles) - 0.6), yticks=[])
    axes.set_title(f"{table.name}: {shown} runs, the darker the better")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower center", title="best")
    return save_figure(figure, path)


@drawing
def draw_best_and_worst(table: Table, curves: Mapping[str, Curve], path: Path) -> Path | None:
    """Draw the curves of the best and the worst comparable runs, and the others in grey, finished or not."""
    rows = [row for row in table.ranked if len(curves.get(row["run"], ((),))[0])]
    if not rows:
        return None
    comparable = [row for row in rows if table.is_comparable(row)]
    best, rest = comparable[:_SHOWN], comparable[_SHOWN:]
    worst = rest[-_SHOWN:]
    others = [*rest[: len(rest) - len(worst)], *rows[len(comparable) :]]
    figure = new_figure(6.0, 3.9)
    axes: Any = figure.add_subplot()
    marker = "o" if max(len(curves[row["run"]][0]) for row in rows) <= 3 else None
    points = {row["run"]: (epochs_trained(curves[row["run"]][0]), curves[row["run"]][1]) for row in rows}
    for number, row in enumerate(_thinned(others)):
        label = f"the {len(others)} others" if number == 0 else "_"
        axes.plot(*points[row["run"]], color=MUTED, alpha=0.5, linewidth=0.8, linestyle="-", label=label)
    for number, row in enumerate((*best, *worst)):
        kind, dash = ("best", "-") if number < len(best) else ("worst", "--")
        label = f"{kind}: {row['run']}, {row[table.select.column]:.3g}"
        thick = 2.6 if number == 0 else 1.6
        axes.plot(
            *points[row["run"]], color=_COLOURS[number], linestyle=dash, marker=marker, linewidth=thick, label=label
        )
    whole_ticks(axes)
    axes.set(
        xlabel=f"{table.unit}s trained",
        ylabel=label_of(table.select.column),
        title=f"{table.name}: best and worst runs",
    )
    axes.grid()
    figure.legend(loc="outside lower center")
    figure.set_figheight(figure.get_figheight() + 0.2 * (len(best) + len(worst) + bool(others)))
    return save_figure(figure, path)


def _thinned(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[:: math.ceil(len(rows) / _MOST_LINES) or 1]


@drawing
def draw_rank_correlation(table: Table, curves: Mapping[str, Curve], path: Path) -> Path | None:
    """Draw for each epoch how the ranking correlates with the final one, and the rank of the best cell."""
    early = how_early(table, curves)
    if early is None:
        return None
    figure = new_figure(6.0, 4.6)
    panels: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above, below = panels
    above.plot(early.epochs, early.correlations, color=PALETTE[0], marker="o", linestyle="-")
    above.set(ylabel="rank correlation\nwith the final ranking", ylim=(min(0.0, *early.correlations) - 0.05, 1.05))
    below.plot(early.epochs, early.best_ranks, color=ACCENT, marker="D", linestyle="-")
    below.set(xlabel=f"{table.unit}s trained", ylabel=f"rank of the best\nof {early.cells} cells")
    below.set_ylim(max(early.best_ranks) + 0.5, 0.5)
    below.set_xticks(ticks_between(early.epochs[0], early.epochs[-1], 10))
    below.set_yticks(ticks_between(1, max(early.best_ranks), 5))
    above.set_yticks([tick / 4 for tick in range(-4, 5) if tick >= 0 or tick / 4 >= min(early.correlations) - 0.05])
    for axes in panels:
        axes.grid()
    sentence = early.sentence.replace("; ", ";\n")
    figure.suptitle(f"{table.name}: how early can one know?\n{sentence}", fontsize=10, x=0.01, ha="left")
    return save_figure(figure, path)
