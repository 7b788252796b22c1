"""The overfit test (M3 of the report): a network that can memorize a few examples has a working loss and optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.config.sections import Paths
from relay.errors import RunError
from relay.figures import MUTED, drawing, label_of, new_figure, save_figure, whole_ticks
from relay.results.tables.table import curve_of
from relay.runs.exports import export_figure
from relay.runs.rundir import RunDir, SweepDir
from relay.terminal import show_value
from src.config.loading import config_of

_PANELS = ("train/loss_epoch", "train/accuracy")
# All of the report's 32 examples. With many, dropout may miss a few of them.
LEAST_ACCURACY = 0.99


def report_overfit(sweep: SweepDir, paths: Paths) -> None:
    """Print the result of the test and draw its figure. Raises RunError if the examples were not memorized."""
    (run,) = sweep.runs()
    result, config = run.result() or {}, config_of(run)
    measured = result.get("train") or {}
    accuracy = measured.get("accuracy")
    count = result.get("train_images", config.train.overfit_size)
    print(
        f"M3   overfit test: {count} examples, {result['epochs']:g} epochs, "
        f"train loss {show_value(measured.get('loss_epoch'))}, train accuracy {show_value(accuracy)}"
    )
    figure = draw_overfit(run, sweep.figure("overfit"))
    if figure:
        print(f"wrote {export_figure(figure, sweep, paths.artifacts)}")
    if result["outcome"] == "diverged" or accuracy is None or accuracy < LEAST_ACCURACY:
        raise RunError(
            f"{run.label}: the overfit test failed: a correct pipeline memorizes {count} examples, with a train "
            f"accuracy of at least {LEAST_ACCURACY}. Give it more time (train.overfit_epochs="
            f"{2 * config.train.epochs}) or another rate (train.optimizer.lr); if that does not help, look for a "
            "mistake in the model, the loss or the labels"
        )
    print("ok   the examples are memorized")


@drawing
def draw_overfit(run: RunDir, path: Path) -> Path | None:
    """Draw the train loss and accuracy over the epochs, and the accuracy from which on the test is passed."""
    figure = new_figure(8, 3.8)
    panels: Any = figure.subplots(1, len(_PANELS))
    for axes, name in zip(panels, _PANELS, strict=True):
        axes.plot(*curve_of(run, name))
        whole_ticks(axes)
        shown = name.removesuffix("_epoch")
        axes.set(xlabel="epoch", ylabel=label_of(shown), title=shown)
        axes.set_ylim(bottom=0)
        axes.grid()
    panels[-1].axhline(LEAST_ACCURACY, color=MUTED, linestyle="--", linewidth=1, label=f"passed from {LEAST_ACCURACY}")
    panels[-1].legend(loc="lower right")
    return save_figure(figure, path)
