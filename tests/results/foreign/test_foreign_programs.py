"""Tags and folders of further programs: fairseq, Catalyst, MosaicML Composer, DeiT and MAE, Ultralytics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.results.collection import answer_of_logs
from relay.results.foreign.logs import read_foreign
from relay.results.tables.ranking import direction_of, words_of
from src.config.schema import Config
from tests.results.foreign.test_foreign import scalar, write


@pytest.mark.parametrize(
    ("folders", "tags", "column"),
    [
        (["train_inner", "train", "valid"], {"loss": 2.0, "ppl": 7.4}, "valid/ppl"),
        (["train_log", "valid_log"], {"accuracy01/epoch": 0.7, "accuracy05/epoch": 0.9}, "valid_log/accuracy01/epoch"),
        (["."], {"test_acc1": 70.0, "test_acc5": 90.0, "test_loss": 1.0}, "test_acc1"),
        (["."], {"metrics/eval/CrossEntropy": 1.0, "metrics/eval/MulticlassAccuracy": 0.7}, "metrics/eval/Multi"),
    ],
)
def test_folders_and_tags_of_other_programs_are_found(
    tmp_path: Path, folders: list[str], tags: dict[str, float], column: str
) -> None:
    for place, rate in enumerate((0.1, 0.01, 0.001)):
        for folder in folders:
            run = tmp_path / f"lr{rate}" / folder
            write(run, *(scalar(tag, 1, value + 0.01 * place) for tag, value in tags.items()))
    table = read_foreign(tmp_path).table
    assert table.select.column.startswith(column)
    assert [row["run"] for row in table.rows] == ["lr0.001", "lr0.01", "lr0.1"], "one row for each run"
    assert table.axes == ["lr"]


def test_the_tags_to_choose_from_include_scores_without_a_split(tmp_path: Path) -> None:
    """Ultralytics logs the losses on val under this name, and mAP without it."""
    write(tmp_path / "a", *(scalar(tag, 1, 0.5) for tag in ("val/box_loss", "val/cls_loss", "metrics/mAP50-95(B)")))
    with pytest.raises(RunError, match=r"2 tags could rank the runs(?s:.*)metrics/mAP50-95\(B\)  in 1 of 1 run"):
        read_foreign(tmp_path)
    assert read_foreign(tmp_path, "metrics/mAP50-95(B)").table.select.direction == "max"


def test_runs_without_hyperparameters_are_no_seeds_of_one_setting(tmp_path: Path) -> None:
    for place, value in enumerate((0.5, 0.9, 0.7)):
        write(tmp_path / f"fold{place}", scalar("val/dice", 1, value))
    answer, _ = answer_of_logs(tmp_path)
    assert answer.sentences()[0] == "best: fold1  val/dice 0.9000"
    assert [row["run"] for row in answer.rows()] == ["fold1", "fold2", "fold0"]
    assert not any("seed" in line or "too few" in line for line in answer.sentences())


def test_one_bad_run_of_many_without_hyperparameters_has_not_collapsed(tmp_path: Path) -> None:
    for place in range(12):
        write(tmp_path / f"run{place}", scalar("val/acc", 1, 0.7 + 0.001 * place if place else 0.1))
    answer, _ = answer_of_logs(tmp_path)
    assert answer.best_set is None
    assert len(answer.settings) == 12


@pytest.mark.parametrize(
    ("tag", "words", "direction"),
    [
        ("MeanSquaredError", ["mean", "squared", "error"], "min"),
        ("LanguagePerplexity", ["language", "perplexity"], "min"),
        ("metrics/mAP50", ["metrics", "map50"], "max"),
        ("val/mIoU", ["val", "miou"], "max"),
        ("test_acc5", ["test", "acc5"], "max"),
        ("grad_norm", ["grad", "norm"], None),
    ],
)
def test_what_a_tag_says(tag: str, words: list[str], direction: str | None) -> None:
    assert words_of(tag) == words
    assert direction_of(tag) == direction


def test_a_path_that_is_no_directory_is_named(small: Callable[..., Config], tmp_path: Path) -> None:
    """And is not taken for the name of a sweep, of which there are none yet."""
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    with pytest.raises(RunError, match="typo: no such directory"):
        aggregate.main([str(tmp_path / "typo")], config=str(tmp_path / "config.yaml"))
