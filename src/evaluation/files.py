"""The files of an evaluation in its run directory (evaluation.json, tables, figures), and what is printed of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.config.sections import Paths
from relay.config.yaml_file import json_text
from relay.errors import RelayError
from relay.files import replace_file
from relay.log import log
from relay.results.tables.table_files import csv_of, csv_text
from relay.runs.exports import export_figure
from relay.runs.predictions import Predictions, read_predictions, write_predictions
from relay.runs.rundir import RunDir, SweepDir
from relay.terminal import print_rows
from src.evaluation.figures import chosen_pairs, draw_calibration, draw_confused_pairs, draw_confusion
from src.evaluation.summary import compare_with_val, evaluation_of
from src.training.measures import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIGURES = ("confusion", "calibration", "confused_pairs")
TABLES = ("per_class", "confused_pairs", "confusion")


def write_evaluation(
    run: RunDir,
    predictions: Predictions,
    class_names: Sequence[str],
    val: Mapping[str, Any] | None,
    image_of: Callable[[int], NDArray[np.uint8]] | None,
) -> dict[str, Any]:
    """Write predictions.npz, evaluation.json, the tables and the figures.

    `val`: what the checkpoint knows of val, if anything, see `compare_with_val`. `image_of`: the image (H, W, C) at a
    position of the split; None if the inputs are no images. Returns the content of evaluation.json, see
    `evaluation_of`, with `against_val`, see `compare_with_val`.
    """
    write_predictions(run.predictions_file, predictions, run.check_owner)
    # Read back, so that whoever reads the file finds the same numbers: it has fewer digits.
    predictions = read_predictions(run.predictions_file) or predictions
    found = evaluation_of(predictions, class_names)
    found["against_val"] = compare_with_val(found["metrics"]["accuracy"], found["n"], val) if val else None
    names = [row["name"] for row in found["classes"]]
    tables = {
        "per_class": csv_of(found["classes"]),
        "confused_pairs": csv_of(found["pairs"]),
        "confusion": csv_text(
            ["true", *names], ([name, *row] for name, row in zip(names, found["confusion"], strict=True))
        ),
    }
    for name, text in tables.items():
        replace_file(run.path / f"{name}.csv", text, check=run.check_owner)
    replace_file(run.evaluation_file, json_text(found), check=run.check_owner)
    _draw(run, predictions, found, image_of)
    return found


def crossed_on_val(val: Mapping[str, Any], runs_dir: Path) -> float | None:
    """The accuracy on val of the run that wrote a checkpoint, each image predicted at an epoch that it did not select.

    `val`: see `compare_with_val`. None if that run has no crossed predictions, is not in `runs_dir`, is damaged, or
    found a better epoch since the checkpoint was copied.
    """
    label = Path(val["run"] or "")
    if len(label.parts) != 2 or ".." in label.parts:  # The file may hold anything.
        return None
    try:
        kept = RunDir(runs_dir / label).predictions()
    except (RelayError, OSError) as error:
        log.info(f"whether val is too high by the choice of the epoch is not known: {error}")
        return None
    if kept is None or kept.crossed is None or len(kept.label) != val["n"]:
        return None
    same = abs(float(kept.correct.mean()) - val["accuracy"]) < 0.5 / val["n"]
    return float(kept.crossed.correct.mean()) if same else None


def _draw(
    run: RunDir,
    predictions: Predictions,
    found: Mapping[str, Any],
    image_of: Callable[[int], NDArray[np.uint8]] | None,
) -> None:
    run.check_owner()
    draw_confusion(found["confusion"], [row["name"] for row in found["classes"]], run.figure("confusion"))
    if found["ece"] is not None:
        draw_calibration(found["calibration"], found["ece"], run.figure("calibration"))
    chosen = chosen_pairs(found["pairs"], predictions.label, predictions.predicted)
    if chosen and image_of:
        examples = [[(image_of(at), float(predictions.confidence[at])) for at in places] for _, places in chosen]
        draw_confused_pairs([pair for pair, _ in chosen], examples, run.figure("confused_pairs"))


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
