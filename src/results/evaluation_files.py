"""The files of an evaluation in its run directory: evaluation.json and its tables as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.config.yaml_file import json_text
from src.files import replace_file
from src.results.evaluation import evaluation_of
from src.runs.predictions import Predictions, read_predictions, write_predictions
from src.runs.rundir import RunDir


def write_evaluation(run: RunDir, predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """Write predictions.npz, evaluation.json, per_class.csv, confused_pairs.csv and confusion.csv.

    Returns the content of evaluation.json, see `evaluation_of`.
    """
    import pandas as pd

    write_predictions(run.predictions_file, predictions, run.check_owner)
    # Read back, so that whoever reads the file finds the same numbers: it has fewer digits.
    found = evaluation_of(read_predictions(run.predictions_file) or predictions, class_names)

    names = [row["name"] for row in found["classes"]]
    tables = {
        "per_class": pd.DataFrame(found["classes"]).to_csv(index=False),
        "confused_pairs": pd.DataFrame(found["pairs"]).to_csv(index=False) if found["pairs"] else "",
        "confusion": pd.DataFrame(found["confusion"], index=names, columns=names).to_csv(index_label="true"),
    }
    for name, text in tables.items():
        replace_file(run.path / f"{name}.csv", text, check=run.check_owner)
    replace_file(run.evaluation_file, json_text(found), check=run.check_owner)
    return found
