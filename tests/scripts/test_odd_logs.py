"""Odd files that scripts write: none ends a run, and no row is lost or made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from hpc.node.child import end_processes_with
from relay.files import DiskError
from relay.program.trace import Moment, moments
from relay.runs.rundir import RunDir
from relay.scripts import sources
from relay.scripts.checkpoints import newest_complete, why_incomplete
from relay.scripts.script_log import ScriptLog
from relay.scripts.sources import files_below, marks_of, read_sources


def rows_of(kind: str, path: Path, *, is_final: bool = False) -> dict[int, dict[str, float]]:
    return read_sources(kind, path, {}, is_final=is_final).rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,text\n1,a\rb\n2,c\n"),
        ("a.csv", 'step,text\n1,"' + "x" * 200_000 + "\n"),
        ("a.csv", "cat,dog"),
        ("a.csv", ""),
        ("a.csv", "\n\n\n"),
        ("a.csv", "step\ninf\nnan\n-1\n1e999\n"),
        ("a.jsonl", '{"epoch": Infinity}\n{"step": NaN}\n{"step": true}\n{"step": -1, "loss": 1}\n'),
        ("a.jsonl", "[" * 5000 + "\n"),
        ("a.jsonl", "\x00\xff\n"),
        ("trainer_state.json", '{"log_history": [{"step": 1e999, "loss": 1}], "max_steps": 1}'),
        ("trainer_state.json", "[]"),
    ],
)
def test_odd_files_end_no_run(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    for kind in ("auto", "csv", "jsonl", "hf", "tensorboard"):
        assert {step for step in rows_of(kind, tmp_path, is_final=True) if step < 0} == set()
    marks = marks_of(files_below(tmp_path))
    (tmp_path / name).write_text(f"{text}more")
    read_sources("auto", tmp_path, marks)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "step;loss\n1;0.5\n2;0.25\n",
        "step\tloss\n1\t0.5\n2\t0.25\n",
        "step, loss\n1, 0.5\n2, 0.25\n",
        "step  loss\n1     0.5\n2     0.25\n",
        "\ufeffstep,loss\n1,0.5\n2,0.25\n",
        "# made by hand\nstep,loss\n1,0.5\n2,0.25\n",
        ",step,loss\n0,1,0.5\n1,2,0.25\n",
        "step,loss\r\n1,0.5\r\n2,0.25\r\n",
        "step,loss\n1,0.5\n2,0.25",
    ],
)
def test_tables_of_any_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.txt").write_text(text, encoding="utf-8")
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    expected = {1: {"loss": 0.5}, 2: {"loss": 0.25}}
    assert rows_of("csv", tmp_path / "log.txt", is_final=True) == expected
    assert rows_of("auto", tmp_path, is_final=True) == expected


def test_the_last_line_of_a_file_that_ends_without_a_break(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}')
    assert list(rows_of("auto", tmp_path)) == [1]
    assert list(rows_of("auto", tmp_path, is_final=True)) == [1, 2]


def test_texts_of_numbers_and_odd_characters(tmp_path: Path) -> None:
    lines = ['{"step": "5", "loss": "1.5"}', '{"step": 6, "text": "a\u2028b\x85c", "loss": 2}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert rows_of("auto", tmp_path) == {5: {"loss": 1.5}, 6: {"loss": 2}}


def test_rows_are_counted_only_in_a_file_without_steps(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"lr": 0.1}\n{"step": 10, "loss": 1}\n{"val": 2}\n{"step": 20, "loss": 3}\n')
    assert rows_of("auto", tmp_path) == {10: {"loss": 1, "val": 2}, 20: {"loss": 3}}
    file.write_text("".join(f'{{"epoch": {epoch}, "loss": {epoch}}}\n' for epoch in (0.5, 1.0, 1.5)))
    assert [row["epoch"] for row in rows_of("auto", tmp_path).values()] == [0.5, 1.0, 1.5]
    file.write_text('{"loss": 1}\n{"loss": 2}\n')
    marks = marks_of([file])
    with file.open("a") as opened:
        opened.write('{"loss": 3}\n')
    assert read_sources("jsonl", file, marks).rows == {3: {"loss": 3}}


def test_train_and_val_with_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("step,loss,lr\n1,0.5,0.1\n")
    (tmp_path / "val.csv").write_text("step,loss\n1,0.75\n")
    assert rows_of("auto", tmp_path) == {1: {"train/loss": 0.5, "lr": 0.1, "val/loss": 0.75}}


def test_a_large_table_without_steps_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features.csv").write_text("a,b\n" + "1,2\n" * 100_000)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    read: list[Path] = []
    monkeypatch.setattr(sources, "_content_of", lambda file: read.append(file) or file.read_text().encode())
    assert rows_of("auto", tmp_path) == {1: {"loss": 0.5}}
    assert [path.name for path in read] == ["log.jsonl"]


class Attempts:
    """Attempts at a run whose script logs JSON lines."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDir(folder / "sweep" / "run")
        self.run.work.mkdir(parents=True)

    def made(
        self, steps: Iterable[int], restored: int | None = None, *, is_killed: bool = False, **more: Any
    ) -> ScriptLog:
        log = ScriptLog(self.run, "auto", self.run.work)
        log.begin(restored)
        with (self.run.work / "log.jsonl").open("a") as file:
            for step in steps:
                file.write(json.dumps({"step": step, "loss": step, **more}) + "\n")
        if not is_killed:
            log.follow(at_once=True)
        log.leave()
        return log

    @property
    def steps(self) -> list[int]:
        return [row["step"] for row in self.run.metrics()]


def test_a_row_at_each_start_deletes_no_history(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.made(range(12))
    log = attempts.made([0, *range(12, 16)])
    assert (attempts.steps, log.made) == ([*range(16)], [*range(12, 16)])
    # One that has logged nothing else, before it was killed.
    attempts.made([0], is_killed=True)
    attempts.made([0, *range(16, 20)])
    assert attempts.steps == [*range(20)]
    # And one that begins again.
    assert attempts.made([0, 1, 2]).made == [0, 1, 2]
    assert attempts.steps == [0, 1, 2]


def test_the_cut_of_an_attempt_whose_supervisor_was_killed_is_known(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.made(range(1, 20))
    attempts.made([0, *range(11, 18)], restored=10, is_killed=True)
    attempts.made([0, *range(16, 20)], restored=15)
    assert attempts.steps == [*range(20)]


def test_checkpoints_counted_from_0_lose_no_row(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.made(range(1, 11))
    attempts.made(range(11, 21), restored=9)
    assert attempts.steps == [*range(1, 21)]


def test_a_table_at_the_end_does_not_replace_the_log(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    log = attempts.made(range(100, 501, 100))
    (attempts.run.work / "per_epoch.csv").write_text("epoch,acc\n1,0.5\n")
    log.follow(at_once=True)
    log.leave()
    assert attempts.steps == [100, 200, 300, 400, 500]


def test_a_log_that_is_emptied_and_written_again_is_new(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.made(range(1, 11))
    log = ScriptLog(attempts.run, "auto", attempts.run.work)
    log.begin(None)
    file = attempts.run.work / "log.jsonl"
    text = file.read_text()
    file.write_text("")
    log.follow(at_once=True)
    file.write_text(text)
    log.follow(at_once=True)
    log.leave()
    assert log.made == [*range(1, 11)]


def test_a_full_disk_doubles_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.scripts import script_log

    attempts = Attempts(tmp_path)
    log = ScriptLog(attempts.run, "auto", attempts.run.work)
    log.begin(None)
    file = attempts.run.work / "log.jsonl"
    append: Callable[..., int] = script_log.append_lines
    log_file = attempts.run.metrics_file

    def fills_up(*given: Any, **more: Any) -> int:
        append(*given, **more)
        raise DiskError(log_file, OSError(28, "No space left on device"))

    file.write_text('{"step": 1, "loss": 1}\n')
    log.follow(at_once=True)
    monkeypatch.setattr(script_log, "append_lines", fills_up)
    file.write_text('{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n')
    with pytest.raises(OSError, match="No space"):
        log.follow(at_once=True)
    monkeypatch.setattr(script_log, "append_lines", append)
    log.follow(at_once=True)
    log.leave()
    assert attempts.steps == [1, 2]


@pytest.mark.parametrize(
    ("pattern", "names", "newest", "number"),
    [
        ("resnet18/last.json", ["resnet18/last.json"], "last.json", -1),
        ("run1/step-*.json", ["run1/step-3.json", "run1/step-12.json"], "step-12.json", 12),
        ("epoch=*", ["epoch=01-val_loss=0.91", "epoch=02-val_loss=0.45"], "epoch=02-val_loss=0.45", 2),
    ],
)
def test_which_number_counts(tmp_path: Path, pattern: str, names: list[str], newest: str, number: int) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found, _ = newest_complete(tmp_path, pattern)
    assert found
    assert (found.path.name, found.number) == (newest, number)


def test_an_order_that_time_contradicts_is_noticed(tmp_path: Path) -> None:
    for name, age in (("m-20261130-235900", 100), ("m-20261201-000100", 50)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    found, _ = newest_complete(tmp_path, "m-*")
    assert found
    assert found.written_before
    assert found.written_before.name == "m-20261201-000100"


def test_lines_of_json_in_a_json_file_are_whole(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert why_incomplete(tmp_path, []) == ""
    (tmp_path / "history.json").write_text('{"a": 1}\n{"a": ')
    assert why_incomplete(tmp_path, []) == "history.json is cut off"


def test_nothing_is_interrupted_but_by_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moments() == (Moment(), Moment())
    monkeypatch.setenv("RELAY_KILL_AFTER", "7")
    assert moments()[1] == Moment(7)


def test_what_an_earlier_attempt_has_left_is_ended() -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={"RELAY_RUN": "/a/run"})
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={"RELAY_RUN": "/a/run2"})
    time.sleep(0.2)
    end_processes_with("RELAY_RUN", "/a/run")
    assert (left.wait(5), other.poll()) == (-9, None)
    other.kill()
    other.wait()
