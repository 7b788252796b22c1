"""The logs of twelve kinds of programs, see fixtures/write_logs.py, against TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.results.foreign.logs import read_foreign
from relay.results.foreign.metric import metric_of
from relay.results.foreign.runs import ForeignRun
from src.config.schema import Config

LOGS = Path(__file__).parent / "fixtures" / "logs"
GRID = {"lr": [0.1, 0.01, 0.1, 0.01], "batch_size": [8, 8, 16, 16]}
# By kind: what is asked for, the tag that ranks the runs, whether it is a share, the hyperparameters of the runs in the
# order of their names, and where a run's folder has the file with this tag.
KINDS: dict[str, tuple[str | None, str, bool, Mapping[str, Sequence[Any]], str]] = {
    "keras": (
        None,
        "validation/epoch_accuracy",
        True,
        {"lr": [0.01, 0.01, 0.1, 0.1], "batch_size": [16, 8, 16, 8]},
        "validation",
    ),
    "detection": (None, "eval/DetectionBoxes_Precision/mAP", True, {"ssd_lr": [0.001, 0.01, 0.1]}, "eval"),
    "clu": (None, "eval_accuracy", True, GRID, ""),
    "lightning1": (None, "val_acc", True, GRID, ""),
    "lightning2": (None, "val_acc", True, GRID, ""),
    "huggingface": (
        None,
        "eval/accuracy",
        True,
        {"learning_rate": GRID["lr"], "per_device_train_batch_size": GRID["batch_size"]},
        "",
    ),
    "baselines": (None, "rollout/ep_rew_mean", False, {"lr": [0.001, 0.01, 0.1]}, ""),
    "rllib": (None, "ray/tune/env_runners/episode_return_mean", False, {"lr": [0.1, 0.01, 0.001]}, ""),
    "detectron2": ("bbox/AP", "bbox/AP", False, {"base_lr": [0.005, 0.01, 0.02]}, ""),
    "mmengine": (None, "coco/bbox_mAP", True, {"lr": [0.005, 0.01, 0.02]}, ""),
    "torchtitan": (None, "loss_metrics/global_avg_loss", False, {"seed": [0, 1, 2]}, ""),
    "determined": (None, "validation/accuracy", True, GRID, ""),
}


def by_tensorboard(folder: Path, tag: str) -> list[tuple[int, float]]:
    """The steps and values of a tag in one folder."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    if tag in reader.Tags()["scalars"]:
        return [(event.step, event.value) for event in reader.Scalars(tag)]
    return [(event.step, float(event.tensor_proto.float_val[0])) for event in values_of(reader, tag)]


def values_of(reader: EventAccumulator, tag: str) -> list[Any]:
    from tensorboard.util.tensor_util import make_ndarray

    events: list[Any] = reader.Tensors(tag)
    for event in events:
        event.tensor_proto.float_val[:] = [float(make_ndarray(event.tensor_proto))]
    return events


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_each_kind_of_logs_is_right(kind: str) -> None:
    asked, column, is_share, axes, folder = KINDS[kind]
    table = read_foreign(LOGS / kind, asked).table
    direction = "min" if "loss" in column else "max"
    assert (table.select.column, table.select.direction, table.select.is_share) == (column, direction, is_share)
    assert {axis: [row[axis] for row in table.rows] for axis in table.axes} == axes
    for row in table.rows:
        tag = column.removeprefix(f"{folder}/") if folder else column
        points = by_tensorboard(LOGS / kind / row["run"] / folder, tag)
        step, value = max(points, key=lambda point: table.select.score(point[1]))
        assert (row["state"], row["best_step"], row[column]) == ("logged", step, pytest.approx(value, rel=1e-6))
    best = table.best()
    assert best is not None
    assert table.select.score(best[column]) == max(table.select.score(row[column]) for row in table.rows)


def test_several_candidates_are_one_message_that_says_what_they_are() -> None:
    with pytest.raises(RunError) as raised:
        read_foreign(LOGS / "detectron2")
    first, *listed, command = str(raised.value).splitlines()
    assert "2 tags could rank the runs; choose one with --metric:" in first
    assert listed == [
        "  bbox/AP  in 3 of 3 runs, last value 30.98",
        "  segm/AP  in 3 of 3 runs, last value 27.98",
    ]
    assert command.endswith("--metric bbox/AP")


def test_a_tag_may_be_named_by_its_end_and_only_tags_that_exist_are_suggested() -> None:
    assert read_foreign(LOGS / "detection", "DetectionBoxes_Precision/mAP").table.select.column.startswith("eval/")
    with pytest.raises(RunError, match="no run has logged total_loss") as raised:
        read_foreign(LOGS / "detection", "total_loss")
    assert "eval/Loss/total_loss  in 3 of 3 runs" in str(raised.value)
    with pytest.raises(RunError, match=r"no run has logged acc; (.|\n)*--metric eval_accuracy$"):
        read_foreign(LOGS / "clu", "acc")


def test_of_several_tags_with_the_end_that_was_asked_for_one_is_the_example() -> None:
    runs = {"a": ForeignRun({tag: ([1], [0.5]) for tag in ("los", "one/long/folder/loss", "other/long/folder/loss")})}
    with pytest.raises(RunError, match=r"--metric one/long/folder/loss$"):
        metric_of(Path("logs"), runs, "loss", None)


def test_the_direction_is_in_the_name_or_given_and_is_said() -> None:
    by_loss = read_foreign(LOGS / "determined", "validation/loss")
    assert (by_loss.table.select.direction, by_loss.table.select.is_share) == ("min", False)
    assert by_loss.notes[0] == "Ranked by validation/loss: lower is better; 4 of 4 runs logged it."
    worst = read_foreign(LOGS / "determined", "validation/accuracy", "min").table.best()
    assert worst is not None
    assert worst["run"] == "trial_0"
    unknown = read_foreign(LOGS / "torchtitan", "grad_norm")
    assert unknown.table.select.direction == "max"
    assert "does not say which way is better: for the opposite, add --direction min." in unknown.notes[0]


def test_what_a_choice_by_test_costs_is_said() -> None:
    runs = {"a": ForeignRun({"test/acc": ([1], [0.5]), "val/acc": ([1], [0.5])})}
    warning = "Runs that are chosen by their results on test look better there than they are."
    assert warning in metric_of(Path("logs"), runs, "test/acc", None)[2]
    assert warning not in metric_of(Path("logs"), runs, None, None)[2]


def obvious(*tags: str) -> str:
    runs = {"a": ForeignRun({tag: ([1], [0.5]) for tag in tags})}
    return metric_of(Path("logs"), runs, None, None)[0]


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        (["val/loss", "val/acc", "test/acc", "train/acc"], "val/acc"),
        (["dev_loss", "loss"], "dev_loss"),
        (["valid/f1", "valid/precision", "valid/recall", "valid/loss"], "valid/f1"),
        (["test/accuracy", "train/accuracy"], "test/accuracy"),
        (["eval/wer", "eval/loss"], "eval/wer"),
        (["accuracy/top1", "accuracy/top5", "loss"], "accuracy/top1"),
        (["val_loss_epoch", "val_loss_step"], "val_loss_epoch"),
        (["validation_metrics/loss", "loss_metrics/global_avg_loss"], "validation_metrics/loss"),
        (["Determined/val_accuracy", "Determined/loss", "Determined/val_loss"], "Determined/val_accuracy"),
        (["eval/mean_reward", "eval/mean_ep_length", "rollout/ep_rew_mean"], "eval/mean_reward"),
        (["ray/tune/episode_reward_mean", "ray/tune/sampler_results/episode_reward_mean"], None),
        (["total_loss", "loss_cls", "loss_box_reg", "lr"], "total_loss"),
        (["anything"], "anything"),
    ],
)
def test_the_obvious_metric_is_chosen(tags: list[str], chosen: str | None) -> None:
    assert obvious(*tags) == (chosen or tags[0])


@pytest.mark.parametrize(
    "tags",
    [["eval/accuracy", "eval/f1"], ["train/accuracy", "train/loss"], ["a", "b"], ["bbox/AP", "segm/AP"]],
)
def test_nothing_is_chosen_where_nothing_is_obvious(tags: list[str]) -> None:
    with pytest.raises(RunError, match=f"--metric {tags[0]}$"):
        obvious(*tags)


def test_the_command_takes_a_metric_and_a_direction(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    config = str(tmp_path / "config.yaml")
    aggregate.main([str(LOGS / "detectron2")], config, metric="segm/AP", direction="min", out=tmp_path / "out")
    assert "Ranked by segm/AP: lower is better; 3 of 3 runs logged it.\n" in capsys.readouterr().out
    assert (tmp_path / "out" / "table.csv").read_text().splitlines()[1].split(",")[1] == "base_lr=0.02"
    with pytest.raises(RunError, match="give --metric TAG, too"):
        aggregate.main([str(LOGS / "detectron2")], config, direction="min")
