"""One figure of a full training (M6 of the report): losses and the selecting metric over the epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.figures import drawing, new_figure, save_figure, whole_ticks
from relay.results.tables.table import curve_of
from relay.runs.rundir import RunDir
from src.config.loading import config_of
from src.config.schema import Config


@drawing
def draw_training(run: RunDir, path: Path) -> Path | None:
    """Draw train and val loss, and the selecting metric on both, with the best epoch marked; None without any epoch.

    The train curves are means over each epoch, taken while the weights change and the images are augmented.
    """
    config, best = config_of(run), (run.result() or {}).get("best") or {}
    names = _panels(config)
    if not curve_of(run, names[0][1])[0]:
        return None
    figure = new_figure(4.6 * len(names), 4.0)
    panels: Any = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, (train, val) in zip(panels, names, strict=True):
        _draw_panel(axes, run, train, val, best)
    panels[0].set(ylabel="loss (nats)")
    panels[0].set_title(gap_text(run), fontsize="medium", loc="left")
    return save_figure(figure, path)


def _panels(config: Config) -> list[tuple[str, str]]:
    """Pairs of columns of the metrics log: on train and on val."""
    name = config.metrics.select.name
    metric = "accuracy" if name == "loss" else name
    return [("train/loss_epoch", "val/loss"), (f"train/{metric}", f"val/{metric}")]


def _draw_panel(axes: Any, run: RunDir, train: str, val: str, best: dict[str, Any]) -> None:
    for name, label, style in ((train, "train", "--"), (val, "val", "-")):
        x, y = curve_of(run, name)
        # Only some metrics are measured on train.
        if x:
            axes.plot(x, y, style, label=label, marker="o" if len(x) < 4 else None)
    value, epoch = best.get(val.removeprefix("val/")), best.get("epoch")
    if epoch is not None and value is not None:
        axes.axvline(epoch, color="grey", linestyle=":", linewidth=1)
        axes.plot([epoch], [value], "*", color="black", markersize=9, label=f"best epoch {epoch:g}: {value:.4f}")
    whole_ticks(axes)
    axes.set(xlabel="epoch", ylabel=val.removeprefix("val/"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def gap_text(run: RunDir) -> str:
    """The gap between val and train loss, at the best epoch and at the last one."""
    gaps = loss_gaps(run)
    if not gaps:
        return ""
    epoch = ((run.result() or {}).get("best") or {}).get("epoch")
    at_best = f"{gaps[epoch]:+.3f} at the best epoch, " if epoch in gaps else ""
    return f"val loss minus train loss: {at_best}{gaps[max(gaps)]:+.3f} at the last"


def loss_gaps(run: RunDir) -> dict[float, float]:
    """Epoch -> val loss minus train loss, in nats, of every epoch that has both."""
    train = dict(zip(*curve_of(run, "train/loss_epoch"), strict=True))
    val = dict(zip(*curve_of(run, "val/loss"), strict=True))
    return {epoch: val[epoch] - train[epoch] for epoch in sorted(train.keys() & val.keys())}
