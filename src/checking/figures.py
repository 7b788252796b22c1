"""The figures of the checks before training: examples per class, and examples before and after augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.figures import drawing, new_figure, save_figure, whole_ticks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# More names than this would overlap below the bars.
_MOST_NAMES = 25


@dataclass(frozen=True)
class Example:
    """A training image, float (H, W, C) in [0, 1]: as preprocessed, augmented several times, and its class number."""

    before: NDArray[np.float32]
    augmented: Sequence[NDArray[np.float32]]
    label: int


@drawing
def draw_class_counts(classes: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draw the examples per class of each split. `classes`: the rows `class_table` of checks.json."""
    parts = [part for part in ("train", "val", "test") if any(row[part] for row in classes)]
    figure = new_figure(8, 1.4 + 1.3 * len(parts))
    panels: Any = figure.subplots(len(parts), 1, squeeze=False, sharex=True)[:, 0]
    named = len(classes) <= _MOST_NAMES
    for axes, part in zip(panels, parts, strict=True):
        counts = [row[part] for row in classes]
        low, high = min(counts), max(counts)
        # Gaps between hundreds of bars would only show the grid of pixels.
        axes.bar(range(len(counts)), counts, width=0.85 if named else 1.0)
        each = f"{low} per class" if low == high else f"{low} to {high} per class"
        axes.set_title(f"{part}: {sum(counts):,} examples, {each}", fontsize="medium", loc="left")
        axes.set(ylabel="examples", ylim=(0, high * 1.15), xlim=(-0.6, len(counts) - 0.4))
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3, axis="y")
    if named:
        names = [row["name"] for row in classes]
        panels[-1].set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        panels[-1].tick_params(axis="x", labelsize="small")
    else:
        whole_ticks(panels[-1])
    panels[-1].set_xlabel("class" if named else "class number")
    figure.align_ylabels()
    return save_figure(figure, path)


@drawing
def draw_examples(examples: Sequence[Example], names: Sequence[str], path: Path) -> Path | None:
    """Draw each example in a column: as it is, then augmented. `names`: those of their classes, one per example."""
    versions = 1 + len(examples[0].augmented)
    figure = new_figure(1.45 * len(examples) + 0.5, 1.6 * versions + 0.2)
    grid: Any = figure.subplots(versions, len(examples), squeeze=False)
    for column, (example, name) in enumerate(zip(examples, names, strict=True)):
        grid[0][column].set_title(name, fontsize="small")
        for row, image in enumerate((example.before, *example.augmented)):
            axes = grid[row][column]
            # The colour map is for images of one channel.
            axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
    for row in range(versions):
        if versions > 1:
            grid[row][0].set_ylabel(f"aug. {row}" if row else "original", fontsize="small")
    return save_figure(figure, path)
