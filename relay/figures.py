"""Figures as PNG, SVG or PDF in one style, drawn without a display. matplotlib is imported only when one is drawn.

A figure never ends what it is drawn for: one that fails is a warning (`drawing`). Text is drawn as it is, whatever a
user calls a class, a cell or a sweep.

A figure is a white card: legible in print and on a dark page. Its colours are those of Okabe and Ito (2008), which
colour-blind readers can tell apart. The same data gives the same bytes, whatever the user's matplotlibrc says.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from relay.errors import RelayError
from relay.files import replace_file
from relay.log import log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Without the yellow, which is too pale on white: blue, vermilion, green, pink, orange, sky blue, black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# What is to be found first, the best cell above all; and what is only there for comparison.
ACCENT, MUTED = PALETTE[1], "#8A8F98"
# A scale that is monotonic in lightness, for readers without colour vision and for grey prints.
SCALE = "cividis"
_INK = "#1F2328"
_DPI = 120
# As many colours as a PNG of one byte per pixel can have. Lines, text and their soft edges need fewer.
_COLOURS = 256
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "grid.color": "#D9DCE1",
    "grid.linewidth": 0.6,
    "image.cmap": SCALE,
    "legend.fontsize": 8.5,
    "legend.framealpha": 0.9,
    "lines.linewidth": 1.6,
    # The names of the parts of an SVG are random without it.
    "svg.hashsalt": "relay",
    "text.color": _INK,
    # `Ba$$in` is a name, not a formula.
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_UNITS = {"accuracy": "share of examples", "top5_accuracy": "share of examples", "loss": "nats", "macro_f1": "0 to 1"}
# Curves whose legend fits into the plot.
_MOST_INSIDE = 4


_Parameters = ParamSpec("_Parameters")


def drawing(draw: Callable[_Parameters, Path | None]) -> Callable[_Parameters, Path | None]:
    """Decorate a function that draws a figure to the path it is given. If that fails, it logs a warning, removes an
    earlier figure there, and returns None. Errors of the data that it draws, RelayError, pass.
    """

    @functools.wraps(draw)
    def draw_or_warn(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Path | None:
        try:
            return draw(*args, **kwargs)
        except RelayError:
            raise
        except Exception as error:  # matplotlib raises almost anything on odd text and values.
            path = next(each for each in (*args, *kwargs.values()) if isinstance(each, Path))
            log.warning(f"{path}: this figure is missing, because it cannot be drawn: {type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    return draw_or_warn


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its legend label, and the x and y of its points. `faint` draws it thin and pale."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


def new_figure(width_in: float = 6.0, height_in: float = 4.2) -> Figure:
    """An empty figure in the project's style; sizes in inches. It uses neither a display nor pyplot's global state.

    Of 6 inches, the text can still be read on a telephone, 390 px wide.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    # Where the colours repeat, another dash tells the curves apart.
    cycle = cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=PALETTE)
    matplotlib.rcParams.update({**_STYLE, "axes.prop_cycle": cycle})
    return Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")


_reworded: ContextVar[Callable[[str], str] | None] = ContextVar("reworded", default=None)


@contextlib.contextmanager
def reworded(change: Callable[[str], str]) -> Iterator[None]:
    """Every text of the figures that are saved within it is changed, such as into another language."""
    token = _reworded.set(change)
    try:
        yield
    finally:
        _reworded.reset(token)


def _reword(figure: Figure, change: Callable[[str], str]) -> None:
    from matplotlib.text import Text
    from matplotlib.ticker import Formatter

    class Changed(Formatter):
        """The labels of another formatter, changed."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __call__(self, x: float, pos: int | None = None) -> str:
            return change(self._inner(x, pos))

        def format_ticks(self, values: Any) -> list[str]:
            return [change(label) for label in self._inner.format_ticks(values)]

        def get_offset(self) -> str:
            return str(self._inner.get_offset())

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(change(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(Changed(axis.get_major_formatter()))


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure to `path`, as PNG, SVG or PDF by its suffix, replacing the file atomically. The same figure
    gives the same bytes.

    A PNG without photographs gets a palette, which halves the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    change = _reworded.get()
    if change:
        _reword(figure, change)
    buffer = io.BytesIO()
    if path.suffix != ".png":
        with _ignoring_gaps():
            date = {".svg": "Date", ".pdf": "CreationDate"}[path.suffix]
            figure.savefig(buffer, format=path.suffix[1:], metadata={date: None})
        return _replace(path, buffer)
    # Not figure.savefig, which lays the figure out by drawing it once more.
    canvas: Any = FigureCanvasAgg(figure)
    with _ignoring_gaps():
        canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(physical=True), canvas.buffer_rgba()).convert("RGB")
    if not any(_is_photo(image) for axes in figure.axes for image in axes.get_images()):
        drawn = drawn.quantize(_COLOURS, dither=Image.Dither.NONE)
    drawn.save(buffer, format="png")
    return _replace(path, buffer)


@contextlib.contextmanager
def _ignoring_gaps() -> Iterator[None]:
    with warnings.catch_warnings():
        # The font has no emoji and no Chinese, and draws a box; a very long name leaves no room for the axes.
        warnings.filterwarnings("ignore", "Glyph .* missing from|constrained_layout not applied", UserWarning)
        yield


def _replace(path: Path, buffer: io.BytesIO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())
    return path


def _is_photo(image: Any) -> bool:
    """Whether it holds colours, (height, width, 3), and not values that a scale turns into colours."""
    return len(image.get_array().shape) == 3


def label_of(column: str) -> str:
    """The label of an axis for a column of the table, with its unit: `val accuracy (share of images)`."""
    name = column.rsplit("/", 1)[-1]
    unit = _UNITS.get(name.removesuffix("_epoch"))
    return f"{column.replace('/', ' ').replace('_', ' ')}" + (f" ({unit})" if unit else "")


def short_names(names: Sequence[str], most: int = 14) -> list[str]:
    """The names with their middle left out where they are longer than `most`; in full if two would become equal."""
    head = most // 2
    short = [name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}" for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def in_lines(name: str, width: int = 12) -> str:
    """The name of a column in lines of about `width`, broken after dots and at underscores."""
    parts = name.replace("_", " ").replace(".", ".\0").replace(" ", " \0").split("\0")
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def ticks_between(first: float, last: float, most: int = 6) -> list[int]:
    """Whole numbers from the first to the last, both among them, at most about `most`: for ranks and epochs."""
    low, high = math.ceil(first), math.floor(last)
    step = max(1, math.ceil((high - low) / (most - 1)))
    inner = [tick for tick in range(low, high, step) if high - tick > step / 2]
    return [*inner, high]


def in_legend(name: str) -> str:
    """`name` as the label of a curve: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def log_scale(axes: Any) -> None:
    """Make the x axis logarithmic, with ticks in plain text: matplotlib's own are formulas."""
    from matplotlib.ticker import LogFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter())


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
    faint = [curve for curve in curves if curve.faint]
    for curve in curves:
        how = {"linewidth": 0.8, "color": MUTED, "alpha": 0.6, "zorder": 1.9, "linestyle": "-"} if curve.faint else {}
        # A line through a single point is invisible.
        marker = "o" if len(curve.x) == 1 else None
        # Many pale curves look alike, so the legend counts them.
        others = len(curves) > _MOST_INSIDE and curve.faint
        name = f"the {len(faint)} others" if curve is next(iter(faint), None) else "_"
        axes.plot(curve.x, curve.y, label=name if others else in_legend(curve.label), marker=marker, **how)
    for number, (label, x) in enumerate((verticals or {}).items()):
        axes.axvline(x, label=label, linestyle=("--", ":")[number % 2], color="black", linewidth=1)
    if log_x:
        log_scale(axes)
    elif max((max(curve.x) for curve in curves), default=0) >= 2:
        whole_ticks(axes)
    if y_limits:
        axes.set_ylim(*y_limits)
    axes.set(xlabel=x_label, ylabel=label_of(y_label), title=title)
    axes.grid()
    _add_legend(figure, axes)
    return save_figure(figure, path)


def _add_legend(figure: Figure, axes: Any) -> None:
    entries = len(axes.get_legend_handles_labels()[1])
    if entries <= _MOST_INSIDE:
        axes.legend()
    else:
        # Inside, the long names of cells would cover the curves.
        figure.legend(loc="outside lower center")
        figure.set_figheight(figure.get_figheight() + 0.2 * entries)
