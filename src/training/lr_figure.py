"""The figure of one LR sweep: the loss over the rate, with the suggested rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.figures import Curve, draw_curves, drawing

Result = Mapping[str, Any]


@drawing
def draw_lr_run(result: Result, path: Path) -> Path | None:
    """Draw one LR sweep: the loss of each step over the rate of the step, smoothed, with the suggested rates."""
    rates, losses, smoothed = result["lr"], result["loss"], result["loss_smoothed"]
    curves = [Curve("loss", rates, losses, faint=True), Curve("smoothed", rates, smoothed)]
    verticals = {f"{name}: {lr:.2e}": lr for name, lr in result["suggestion"].items() if lr is not None}
    limits = limits_of_loss([smoothed, losses], next(iter(smoothed), 1.0))
    return draw_curves(path, curves, "learning rate", "train loss", log_x=True, verticals=verticals, y_limits=limits)


def limits_of_loss(curves: Sequence[Sequence[float]], start: float) -> tuple[float, float]:
    """The y axis without the diverged end of a curve, which would flatten the part that matters."""
    lowest = min((loss for curve in curves for loss in curve), default=0.0)
    return lowest - 0.1 * (start - lowest) - 0.05, start + 0.6 * abs(start - lowest) + 0.3
