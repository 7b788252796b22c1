from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.results.tables.ranking import Direction, Ranking
from relay.results.tables.table import Table, read_table
from relay.results.tables.view import ranked_by
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.results.tables.test_table import finish


@pytest.fixture
def sweep(small: Callable[..., Config], tmp_path: Path) -> SweepDir:
    """Four cells, of which the one with the best accuracy has the worst loss, and a config file beside it."""
    config = small()
    (tmp_path / "config.yaml").write_text(dump_yaml(config.to_dict()))
    made, _ = open_sweep(grid_request(config))
    for number, run in enumerate(made.runs()):
        finish(run, 0.2 + number / 10, 1.0 + number)
    return made


def test_a_sweep_is_ranked_by_any_of_its_metrics_and_its_own_files_stay(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tmp_path / "config.yaml")
    aggregate.main([sweep.name], config)
    before = {path.name: path.read_bytes() for path in sweep.path.iterdir() if path.is_file()}
    capsys.readouterr()
    aggregate.main([sweep.name], config, metric="val/loss")
    shown = capsys.readouterr().out
    said = "Ranked by val/loss: lower is better; the values are those of the epoch with the best val/accuracy."
    assert said in shown
    assert {path.name: path.read_bytes() for path in sweep.path.iterdir() if path.is_file()} == before
    written = json.loads((tmp_path / "artifacts" / f"{sweep.name}_by_val_loss" / "aggregate.json").read_text())
    assert written["select"] == {"name": "loss", "direction": "min", "column": "val/loss"}
    assert [row["val/loss"] for row in written["rows"]] == [1, 2, 3, 4]
    aggregate.main([sweep.name], config, metric="val/loss", direction="max", as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert [row["val/loss"] for row in answer["rows"]] == [4, 3, 2, 1]
    assert answer["notes"][0].startswith("Ranked by val/loss: higher is better;")


@pytest.mark.parametrize(
    ("column", "given", "ranking", "said"),
    [
        ("train/loss", None, Ranking("train/loss", "min"), "lower is better; the values are those of the last epoch."),
        ("val/accuracy", None, Ranking(), "higher is better."),
        (
            "images_per_s",
            None,
            Ranking("images_per_s", "max", False),
            "higher is better, though its name does not say so: for the opposite, add --direction min.",
        ),
        ("images_per_s", "min", Ranking("images_per_s", "min", False), "lower is better."),
    ],
)
def test_the_direction_follows_from_the_name_or_is_given(
    sweep: SweepDir, column: str, given: Direction | None, ranking: Ranking, said: str
) -> None:
    table, sentence = ranked_by(read_table(sweep), column, given)
    assert (table.select, sentence) == (ranking, f"Ranked by {column}: {said}")


@pytest.mark.parametrize("column", ["lr", "run", "index", "val/rouge"])
def test_what_is_no_metric_is_one_message_with_those_that_are(sweep: SweepDir, column: str) -> None:
    with pytest.raises(
        RunError, match=rf"--metric {column} is not a metric in its table; its metrics are val/accuracy, "
    ):
        ranked_by(read_table(sweep), column, None)


def test_before_anything_is_measured_there_is_no_metric() -> None:
    table = Table("t", [{"index": 0, "run": "a", "state": "new", "val/accuracy": None}], [], Ranking())
    with pytest.raises(RunError, match="no run has measured anything yet"):
        ranked_by(table, "val/accuracy", None)
