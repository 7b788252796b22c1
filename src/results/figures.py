"""Figures as PNG files, drawn without a display. matplotlib is imported only when a figure is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Curves whose legend fits into the plot.
_MOST_INSIDE = 4


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its legend label, and the x and y of its points. `faint` draws it thin and pale."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


def new_figure(width_in: float = 7.0, height_in: float = 4.2) -> Figure:
    """An empty figure that uses neither a display nor pyplot's global state; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure to `path` as PNG, replacing the file atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())
    return path


def whole_ticks(axes: Any) -> None:
    """Put ticks at whole numbers only, for epochs and classes."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_curves(
    path: Path,
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    log_x: bool = False,
    verticals: Mapping[str, float] | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Path:
    """Draw one panel of curves with a legend. `verticals` maps labels to positions on the x axis."""
    figure = new_figure()
    axes: Any = figure.add_subplot()
    for curve in curves:
        width, alpha = (0.8, 0.4) if curve.faint else (1.6, 1.0)
        # A line through a single point is invisible.
        marker = "o" if len(curve.x) == 1 else None
        axes.plot(curve.x, curve.y, label=curve.label, linewidth=width, alpha=alpha, marker=marker)
    for number, (label, x) in enumerate((verticals or {}).items()):
        axes.axvline(x, label=label, linestyle=("--", ":")[number % 2], color="black", linewidth=1)
    if log_x:
        axes.set_xscale("log")
    elif max((max(curve.x) for curve in curves), default=0) >= 2:
        whole_ticks(axes)
    if y_limits:
        axes.set_ylim(*y_limits)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    # A longer legend would cover the curves.
    if _MOST_INSIDE < len(curves) <= 16:
        # Inside, the long names of cells would cover the curves.
        figure.legend(loc="outside lower center", fontsize="small")
        figure.set_figheight(figure.get_figheight() + 0.2 * len(curves))
    elif len(curves) <= _MOST_INSIDE:
        axes.legend(fontsize="small")
    return save_figure(figure, path)
