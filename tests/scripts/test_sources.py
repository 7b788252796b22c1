"""The metrics that scripts write for themselves, in the formats of several tools."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from relay.runs.attempt import Attempt
from relay.runs.rundir import RunDir
from relay.scripts.checkpoints import find_checkpoints, newest_complete, number_in, why_incomplete
from relay.scripts.position import Position, restored_step
from relay.scripts.script_log import ScriptLog
from relay.scripts.sources import files_below, marks_of, read_sources


def rows_of(kind: str, folder: Path, marks: Any = None) -> dict[int, dict[str, float]]:
    return read_sources(kind, folder, marks or {}).rows


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


HISTORY = [
    {"step": 50, "epoch": 0.5, "loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-3},
    {"step": 50, "epoch": 0.5, "eval_loss": 2.6, "eval_runtime": 1.5},
    {"step": 100, "epoch": 1.0, "loss": math.nan},
]


def test_hugging_face(tmp_path: Path) -> None:
    state = {"log_history": HISTORY, "max_steps": 200, "global_step": 100}
    write(tmp_path / "checkpoint-50" / "trainer_state.json", json.dumps({**state, "log_history": HISTORY[:2]}))
    newest = write(tmp_path / "checkpoint-100" / "trainer_state.json", json.dumps(state))
    found = read_sources("auto", tmp_path, {})
    assert found.total == 200
    assert found.rows[50] == {
        "epoch": 0.5, "loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-3, "eval_loss": 2.6, "eval_runtime": 1.5
    }  # fmt: skip
    assert math.isnan(found.rows[100]["loss"])
    # One that is cut off: the one before counts.
    newest.write_text(json.dumps(state)[:40])
    assert list(rows_of("hf", tmp_path)) == [50]


def test_the_csv_of_lightning_counts_from_0(tmp_path: Path) -> None:
    lines = "epoch,step,train_loss,val_loss\n0,49,1.5,\n0,63,,1.25\n1,99,inf,\n1,127,,1.0"
    file = write(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", lines)
    # The last line is not complete.
    assert rows_of("csv", tmp_path) == {
        50: {"epoch": 0, "train_loss": 1.5},
        64: {"epoch": 0, "val_loss": 1.25},
        100: {"epoch": 1, "train_loss": math.inf},
    }
    marks = marks_of(files_below(tmp_path))
    write(tmp_path / "lightning_logs" / "version_1" / "metrics.csv", "epoch,step,train_loss\n1,99,0.5\n")
    assert rows_of("csv", tmp_path, marks) == {100: {"epoch": 1, "train_loss": 0.5}}
    # It appends to a file that it had begun, or writes it anew.
    (tmp_path / "lightning_logs" / "version_1" / "metrics.csv").unlink()
    file.write_text(f"{lines}\n2,149,0.25,\n")
    assert rows_of("csv", tmp_path, marks)[150] == {"epoch": 2, "train_loss": 0.25}
    assert 50 not in rows_of("csv", tmp_path, marks)
    file.write_text("epoch,step,other\n" + "0,0,1.0\n" * 20)
    assert rows_of("csv", tmp_path, marks)[1] == {"epoch": 0, "other": 1.0}


def test_json_lines_of_any_script(tmp_path: Path) -> None:
    rows = [
        {"global_step": 1, "train": {"loss": 2.0, "acc": 0.1}, "name": "x", "flag": True},
        {"global_step": 1, "val/loss": float("nan")},
        {"global_step": 2, "train": {"loss": 1.0}, "time": 12.5, "error": 0.4, "lr": "0.1"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write(tmp_path / "logs" / "train.jsonl", f'{text}this is no JSON\n[1]\n{{"global_step": 3, "x": 1')
    found = rows_of("auto", tmp_path)
    assert found[1]["train/loss"] == 2.0
    assert math.isnan(found[1]["val/loss"])
    # A name of Relay's own columns.
    assert found[2] == {"train/loss": 1.0, "logged/error": 0.4, "lr": 0.1}
    assert 3 not in found


def test_rows_without_a_step_count_themselves_only_where_the_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "predictions.jsonl", '{"image": 3, "score": 0.5}\n{"image": 4, "score": 0.6}\n')
    write(tmp_path / "table.csv", "name,score\na,0.5\n")
    assert rows_of("auto", tmp_path) == {}
    assert rows_of("jsonl", tmp_path / "predictions.jsonl") == {
        1: {"image": 3, "score": 0.5},
        2: {"image": 4, "score": 0.6},
    }


def test_epochs_are_the_steps_of_a_script_that_counts_only_those(tmp_path: Path) -> None:
    write(tmp_path / "history.csv", "epoch,loss,val_accuracy\n0,2.5,0.1\n1,2.0,0.2\n")
    assert rows_of("auto", tmp_path) == {
        0: {"epoch": 0, "loss": 2.5, "val_accuracy": 0.1},
        1: {"epoch": 1, "loss": 2.0, "val_accuracy": 0.2},
    }


def test_tensorboard_of_two_writers_with_the_same_tags(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for name in ("train", "validation"):
        with SummaryWriter(str(tmp_path / name)) as writer:
            for step in range(3):
                writer.add_scalar("epoch_loss", step + (name == "train"), step)
            writer.add_scalar(f"only_{name}", 1.0, 2)
    found = rows_of("auto", tmp_path)
    assert found[2] == {
        "train/epoch_loss": 3.0, "validation/epoch_loss": 2.0, "only_train": 1.0, "only_validation": 1.0
    }  # fmt: skip
    marks = marks_of(files_below(tmp_path))
    with SummaryWriter(str(tmp_path / "train")) as writer:
        writer.add_scalar("epoch_loss", 9.0, 2)
    assert rows_of("tensorboard", tmp_path, marks) == {2: {"epoch_loss": 9.0}}


def test_linked_files_are_none_of_the_run(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "data" / "log.jsonl", '{"step": 1, "loss": 2.0}\n')
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "log.jsonl").symlink_to(elsewhere)
    (tmp_path / "work" / "data").symlink_to(elsewhere.parent)
    assert rows_of("auto", tmp_path / "work") == {}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("out/checkpoint-300", 300),
        ("out/checkpoint-300/model.pt", 300),
        ("run2/model_007.h5", 7),
        ("epoch=3-step=400.ckpt", 400),
        ("epoch=3-step=400-v1.ckpt", 400),
        ("net-v2.pt", 2),
        ("last.ckpt", -1),
        ("v2.pt2", 2),
        ("ckpt-12", 12),
    ],
)
def test_the_number_of_a_checkpoint(name: str, number: int) -> None:
    assert number_in(name) == number


def test_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    import numpy as np
    import torch

    for step in (9, 10, 100, 200):
        folder = tmp_path / f"ckpt-{step}"
        folder.mkdir()
        torch.save({"w": torch.ones(1000)}, folder / "model.pt")
        np.savez(folder / "more.npz", x=np.ones(10))
        (folder / "done.json").write_text('{"ok": true}')
    found, passed = newest_complete(tmp_path, "ckpt-*", ["done.json", "!incomplete"])
    assert found
    assert (found.path.name, passed) == ("ckpt-200", [])
    (tmp_path / "ckpt-200" / "done.json").unlink()
    torn = tmp_path / "ckpt-100" / "model.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    (tmp_path / "ckpt-10" / "incomplete").touch()
    found, passed = newest_complete(tmp_path, "ckpt-*", ["done.json", "!incomplete"])
    assert found
    assert (found.path.name, found.highest) == ("ckpt-9", 200)
    assert [problem for _, problem in passed] == ["done.json is missing", "model.pt is cut off", "incomplete is there"]
    assert [each.number for each in find_checkpoints(tmp_path, "ckpt-*")] == [200, 100, 10, 9]


def test_a_checkpoint_that_replaces_a_torn_one_is_the_newest(tmp_path: Path) -> None:
    """Lightning overwrites no file that was there before its process."""
    for age, name in enumerate(["step=80-v1.ckpt", "step=80.ckpt", "step=60.ckpt"]):
        (tmp_path / name).write_bytes(b"" if name == "step=80.ckpt" else b"x")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    found, _ = newest_complete(tmp_path, "*.ckpt")
    assert found
    assert (found.path.name, found.number) == ("step=80-v1.ckpt", 80)


def test_what_is_cut_off_is_told_by_its_format(tmp_path: Path) -> None:
    import struct

    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole)
    assert why_incomplete(file, []) == ""
    for size in (len(whole) - 1, 20, 5):
        file.write_bytes(whole[:size])
        assert why_incomplete(file, []) == "it is cut off"
    file.write_bytes(b"")
    assert why_incomplete(file, []) == "it is empty"
    (tmp_path / "state").write_text("12")
    assert why_incomplete(tmp_path / "state", [".done"]) == ".done is missing"
    (tmp_path / "state.done").touch()
    assert why_incomplete(tmp_path / "state", [".done"]) == ""


def test_the_number_counts_steps_only_if_the_rows_do(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"epoch-{number}.txt", "x")
        write(tmp_path / f"step-{number * 100}.txt", "x")
    epochs, _ = newest_complete(tmp_path, "epoch-*")
    steps, _ = newest_complete(tmp_path, "step-*")
    rows = range(1, 351)
    assert restored_step(epochs, rows) is None
    assert restored_step(steps, rows) == 300
    assert restored_step(epochs, ()) == 3
    assert restored_step(epochs, range(1, 4)) == 3
    assert restored_step(None, rows) is None


def test_a_script_that_starts_over_has_saved_nothing(tmp_path: Path) -> None:
    first = Position(None, (), [], 0)
    first.end(range(1, 101), range(1, 101), None, 0)
    assert (first.first, first.saved) == (0, 100)
    before = [Attempt(1, 0.0, first_step=0, last_step=100)]
    over = Position(None, range(1, 101), before, 0)
    over.end(range(1, 121), range(1, 121), None, 0)
    assert (over.first, over.saved, over.reached) == (0, 0, 120)
    resumed = Position(None, range(1, 101), before, 0)
    resumed.end(range(1, 121), range(81, 121), None, 0)
    assert (resumed.first, resumed.saved) == (80, 120)


def test_a_script_that_ignores_its_checkpoint_starts_over(tmp_path: Path) -> None:
    for number in (10, 20):
        write(tmp_path / f"ckpt-{number}", "x")
    newest, _ = newest_complete(tmp_path, "ckpt-*")
    before = [Attempt(1, 0.0, first_step=0, last_step=20)]

    def first(own: range, first_seen: int) -> int:
        position = Position(newest, range(1, 25), before, 0, needs_one=True)
        position.end(range(1, 41), own, newest, 0, first_seen=first_seen)
        return position.first

    assert first(range(21, 31), 23) == 20
    assert first(range(20, 31), 23) == 20
    assert first(range(1, 31), 3) == 0
    # One that writes its whole history, once it has made a step.
    assert first(range(1, 31), 21) == 20


def test_a_history_that_is_repeated_is_not_made_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "sweep" / "run")
    (run.work / "out").mkdir(parents=True)
    file = run.work / "out" / "trainer_state.json"

    def save(last: int) -> None:
        rows = [{"step": step, "loss": 1.0 / step} for step in range(10, last + 1, 10)]
        file.write_text(json.dumps({"log_history": rows, "max_steps": 100}))

    log = ScriptLog(run, "auto", run.work)
    log.begin(None)
    save(40)
    log.follow(at_once=True)
    log.leave()
    following = ScriptLog(run, "auto", run.work)
    following.begin(None)
    assert following.follow(at_once=True) is None
    save(70)
    following.follow(at_once=True)
    following.leave()
    assert (following.made, list(following.rows()), following.total) == ([50, 60, 70], [*range(10, 71, 10)], 100)
    assert [row["step"] for row in run.metrics()] == [*range(10, 71, 10)]
