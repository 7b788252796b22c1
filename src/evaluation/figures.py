"""The figures of an evaluation: confusion matrix, calibration, and examples of the most confused pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.figures import ACCENT, MUTED, SCALE, drawing, new_figure, save_figure
from relay.terminal import show_value
from src.evaluation.calibration import MIN_IN_BIN, Bin, CalibrationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# More names than these do not fit beside the matrix.
_MOST_NAMED = 30
_PAIRS, _EXAMPLES = 6, 4


@drawing
def draw_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str], path: Path) -> Path | None:
    """Draw the share of each true class (row) that was predicted as each class (column)."""
    import numpy as np

    counts = np.asarray(confusion, dtype=float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = len(names) <= _MOST_NAMED
    side = max(4.5, 0.35 * len(names) + 2) if named else 7.0
    figure = new_figure(side + 0.8, side)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap=SCALE, vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.grid(visible=False)
    axes.set(xlabel="predicted class", ylabel="true class", title="confusion matrix")
    if named:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    return save_figure(figure, path)


@drawing
def draw_calibration(bins: Sequence[Bin], ece: CalibrationError, path: Path) -> Path | None:
    """Draw accuracy over confidence, a point per bin, and the number of images of each.

    Bins with few images are hollow, and no part of the line.
    """
    figure = new_figure(5.6, 5.4)
    panels: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above, below = panels
    above.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="perfectly calibrated")
    # None breaks the line.
    line = [b["accuracy"] if b["n"] >= MIN_IN_BIN else None for b in bins]
    above.plot([b["confidence"] for b in bins], line, color=ACCENT, marker="o", label="this network")
    few = [b for b in bins if 0 < b["n"] < MIN_IN_BIN]
    if few:
        points = [b["confidence"] for b in few], [b["accuracy"] for b in few]
        style = {"color": ACCENT, "linestyle": "none", "marker": "o", "fillstyle": "none"}
        above.plot(*points, **style, label=f"fewer than {MIN_IN_BIN} examples")
    title = f"ECE {ece['value']:.4f}; calibrated: {ece['floor']:.4f} on average, at most {ece['bound']:.4f} (95 %)"
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.set_title(title, fontsize="medium")
    above.legend()
    centres = [(b["low"] + b["high"]) / 2 for b in bins]
    below.bar(centres, [b["n"] for b in bins], width=0.9 / len(bins), color=ACCENT)
    below.set(xlabel="confidence of the prediction", ylabel="examples")
    return save_figure(figure, path)


@drawing
def draw_confused_pairs(
    pairs: Sequence[Any], examples: Sequence[Sequence[tuple[NDArray[np.uint8], float]]], path: Path
) -> Path | None:
    """Draw a row of examples for each pair: `examples` has the images, (H, W, C), and the confidence of each."""
    figure = new_figure(1.5 * _EXAMPLES + 2.6, 1.7 * len(pairs) + 0.3)
    grid: Any = figure.subplots(len(pairs), _EXAMPLES, squeeze=False)
    for row, (pair, images) in enumerate(zip(pairs, examples, strict=True)):
        for column, axes in enumerate(grid[row]):
            axes.set(xticks=[], yticks=[])
            if column < len(images):
                # The colour map is for images of one channel.
                axes.imshow(images[column][0], interpolation="nearest", cmap="gray", vmin=0, vmax=255)
                axes.set_title(f"confidence {show_value(images[column][1])}", fontsize="x-small")
            else:
                axes.set_axis_off()
        label = f"{pair['true_name']}\nas {pair['predicted_name']}\n{pair['n']} images"
        grid[row][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    return save_figure(figure, path)


def chosen_pairs(
    pairs: Sequence[Any], label: NDArray[np.int64], predicted: NDArray[np.int64]
) -> list[tuple[Any, list[int]]]:
    """The most confused pairs, and the positions of a few of the images of each."""
    import numpy as np

    return [
        (pair, np.flatnonzero((label == pair["true"]) & (predicted == pair["predicted"]))[:_EXAMPLES].tolist())
        for pair in pairs[:_PAIRS]
    ]
