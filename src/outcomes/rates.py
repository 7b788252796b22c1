"""The results of an LR sweep (M4 of the report): the loss over the rate, and the suggestion with its spread over seeds.

`lr_suggestion.json` of the sweep holds what `suggested_rates` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from relay.config.yaml_file import json_text
from relay.figures import drawing, log_scale, new_figure, save_figure
from relay.files import replace_file
from relay.runs.rundir import RunDir, SweepDir
from src.training.lr_figure import draw_lr_run, limits_of_loss

Result = Mapping[str, Any]
METHODS = ("steepest", "valley")
_STYLES = {"steepest": "--", "valley": ":"}
_COLOURS = {"steepest": "tab:orange", "valley": "tab:green"}


def suggested_rates(results: Sequence[Result]) -> dict[str, Any]:
    """The suggestion of several LR sweeps of one experiment, which differ in their seed.

    Keys: `seeds`, and for each of `steepest` and `valley` {median, min, max, rates}: one rate per seed, null where the
    loss never fell; median, min and max are over the others, and null if there are none.
    """
    summary: dict[str, Any] = {"seeds": [result.get("seed") for result in results]}
    for method in METHODS:
        rates = [(result.get("suggestion") or {}).get(method) for result in results]
        known = [rate for rate in rates if rate is not None]
        measured = {"median": median(known), "min": min(known), "max": max(known)} if known else {}
        summary[method] = {"median": None, "min": None, "max": None, **measured, "rates": rates}
    return summary


def suggestion_text(summary: Mapping[str, Any]) -> str:
    """The suggestion in one line, for `suggested_rates`."""
    seeds = len(summary["seeds"])
    parts = []
    for method in METHODS:
        rate = summary[method]
        if rate["median"] is None:
            parts.append(f"{method}: none, the loss never fell")
        elif seeds == 1:
            parts.append(f"{method} {rate['median']:.2e}")
        else:
            parts.append(f"{method} {rate['median']:.2e} ({rate['min']:.2e} to {rate['max']:.2e})")
    over = f"median (min to max) over {seeds} seeds" if seeds > 1 else f"seed {summary['seeds'][0]}"
    return f"suggested learning rates, {over}: {'; '.join(parts)}"


@drawing
def draw_lr_sweep(results: Sequence[Result], path: Path) -> Path | None:
    """Draw the smoothed loss over the rate: the median over the seeds, in the band from the lowest to the highest.

    The suggested rates are marked by their median and the span over the seeds. With one seed, this is `draw_lr_run`.
    """
    if len(results) == 1:
        return draw_lr_run(results[0], path)
    # The rate of a step does not depend on the seed. A curve ends where its loss diverged.
    rates = max((result["lr"] for result in results), key=len)
    by_step = [
        [result["loss_smoothed"][step] for result in results if step < len(result["loss_smoothed"])]
        for step in range(len(rates))
    ]
    low, middle, high = ([each(losses) for losses in by_step] for each in (min, median, max))
    figure = new_figure()
    axes: Any = figure.add_subplot()
    axes.fill_between(rates, low, high, alpha=0.25, linewidth=0, label=f"{len(results)} seeds, min to max")
    axes.plot(rates, middle, label="median of the smoothed loss")
    _mark_rates(axes, suggested_rates(results))
    log_scale(axes)
    axes.set(xlabel="learning rate", ylabel="train loss")
    axes.set_ylim(*limits_of_loss([low], middle[0] if middle else 1.0))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return save_figure(figure, path)


def _mark_rates(axes: Any, summary: Mapping[str, Any]) -> None:
    for method in METHODS:
        rate = summary[method]
        if rate["median"] is None:
            continue
        label = f"{method}: {rate['median']:.2e} ({rate['min']:.2e} to {rate['max']:.2e})"
        axes.axvline(rate["median"], linestyle=_STYLES[method], color=_COLOURS[method], label=label)
        # The span as a bar above the axis: as an area it would hide the curve.
        height = 0.04 + 0.04 * METHODS.index(method)
        axes.plot(
            [rate["min"], rate["max"]],
            [height, height],
            "|-",
            color=_COLOURS[method],
            linewidth=2.5,
            markersize=9,
            transform=axes.get_xaxis_transform(),
        )


def write_lr_results(sweep: SweepDir) -> tuple[dict[str, Any], list[Path]] | None:
    """Write lr_finder.png and lr_suggestion.json of an LR sweep from its finished runs; None while there are none.

    Returns what lr_suggestion.json holds, and the paths of what was written.
    """
    results = [result for run in sweep.runs() if (result := _finished(run))]
    if not results:
        return None
    summary = suggested_rates(results)
    replace_file(sweep.results_file("lr_suggestion.json"), json_text(summary))
    figure = draw_lr_sweep(results, sweep.figure("lr_finder"))
    return summary, [sweep.results_file("lr_suggestion.json"), *([figure] if figure else [])]


def _finished(run: RunDir) -> dict[str, Any] | None:
    return run.result() if run.is_done() else None
