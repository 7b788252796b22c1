"""What is shown of an evaluation besides its table: metrics with intervals, sentences, tables and figures."""

from __future__ import annotations

from relay.config.sections import Paths
from relay.runs.exports import export_figure
from relay.runs.rundir import SweepDir
from relay.terminal import print_rows
from src.evaluation.files import FIGURES, TABLES
from src.training.measures import METRICS


def show_evaluation(sweep: SweepDir, paths: Paths) -> None:
    """Print the metrics with their intervals, the calibration and the gap to val; copy tables and figures."""
    (run,) = sweep.runs()
    result = run.result() or {}
    intervals = result.get("intervals") or {}
    rows = [
        {"metric": name, "value": result.get(name), "low": low, "high": high}
        for name in METRICS
        if name in result
        for low, high in [intervals.get(name, (None, None))]
    ]
    print_rows(rows, f"{result['split']}: n {result['n']}, 95 % intervals")
    if result.get("ece"):
        print(f"M9   {result['ece']['sentence']}")
    if result.get("against_val"):
        print(f"M9   {result['against_val']['sentence']}")
    if result.get("leak"):
        print(f"M9   {result['leak']}")
    for path in (*(run.path / f"{name}.csv" for name in TABLES), *map(run.figure, FIGURES)):
        if path.is_file():
            print(f"wrote {path}, {export_figure(path, sweep, paths.artifacts)}")
