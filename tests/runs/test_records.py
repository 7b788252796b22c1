"""Damaged files of a run directory: one message with file and line, and the other runs continue."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor.cancel import cancel_runs
from hpc.monitor.logs import show_logs
from hpc.monitor.retry import retry
from hpc.monitor.status import show_status
from hpc.monitor.status_rows import sweep_status
from hpc.node.run_lock import _sign_of_life
from hpc.pipeline.directory import StageRecord, all_pipelines, make_pipeline
from hpc.recovery.reconcile import classify_runs
from hpc.submission.here import execute_here
from hpc.submission.launching import launch
from hpc.submission.submissions import submissions
from jobs.grid import GRID
from relay.errors import RunError
from relay.files import append_lines, read_lines, replace_file
from relay.results.collection import answer_of_sweep, collect
from relay.results.tables.table import read_table
from relay.runs import rundir
from relay.runs.attempt import Attempt, join_lines
from relay.runs.lifecycle import reached_step
from relay.runs.names import find_named
from relay.runs.records import AttemptLine
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import find_sweep, open_sweep, sweeps
from relay.terminal import table_of
from src.config.schema import Config
from src.requests import grid_request, train_request
from tests.conftest import asked
from tests.results.tables.test_table import finish

ROW = {"step": 1, "epoch": 1.0, "time": 1.0}
CELL: dict[str, Any] = {"index": 0, "name": "a", "key": "k", "overrides": {}}


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    """Four cells, the first two done."""
    made = open_sweep(grid_request(small()))[0]
    for run, accuracy in zip(made.runs()[:2], (0.5, 0.75), strict=True):
        finish(run, accuracy)
    return made


def write_line(path: Path, content: object, line: int = 2) -> None:
    """Replace a line by other JSON, or add one. An empty line before it counts, too."""
    lines = path.read_text().splitlines() if path.exists() else []
    lines += [""] * (line - 1 - len(lines))
    path.write_text("\n".join([*lines[: line - 1], json.dumps(content), *lines[line:]]) + "\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "must be an object"),
        ("text", "must be an object"),
        ({"start": 1.0}, "attempt: Field required"),
        ({"attempt": "1"}, "attempt: must be a valid integer, and is '1'"),
        ({"attempt": 1, "start": "now"}, "start: must be a valid number"),
        ({"attempt": 1, "start": 1e300}, "start: must be less than"),
        ({"attempt": 1, "pid": -1}, "pid: must be greater than"),
        ({"attempt": 1, "cause": 5}, "cause: must be a valid string"),
        ({"attempt": 1, "job": "../../x"}, "job: must be a name"),
    ],
)
def test_a_line_of_attempts_of_another_shape(sweep: SweepDir, content: object, expected: str) -> None:
    run = sweep.runs()[0]
    write_line(run.attempts_file, content)
    with pytest.raises(RunError) as caught:
        run.attempts()
    assert str(caught.value).startswith(f"{run.attempts_file}: line 2: {expected}")
    assert "remove the line" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "must be an object"),
        ({"epoch": 1.0, "time": 1.0}, "step: must be a whole number"),
        ({**ROW, "step": -1}, "step: must be from 0"),
        ({**ROW, "val/accuracy": "0.5"}, "val/accuracy: must be a number or null, and is '0.5'"),
    ],
)
def test_a_metrics_row_of_another_shape(sweep: SweepDir, content: object, expected: str) -> None:
    run = sweep.runs()[0]
    write_line(run.metrics_file, content)
    for read in (run.metrics, run.last_metrics, lambda: reached_step(run)):
        with pytest.raises(RunError) as caught:
            read()
        assert str(caught.value).startswith(f"{run.metrics_file}: line 2: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("done", "must be an object"),
        ({"outcome": "completed"}, "status: Field required"),
        ({"status": "done", "best": []}, "best: must be an object"),
        ({"status": "done", "best": {"accuracy": "0.5"}}, "best.accuracy: must be a number or null"),
        ({"status": "done", "suggestion": {"valley": []}}, "suggestion.valley: must be a number or null"),
        ({"status": "done", "columns": {"val/accuracy": []}}, "columns.val/accuracy: must be a number or null"),
    ],
)
def test_a_result_of_another_shape(sweep: SweepDir, content: object, expected: str) -> None:
    run = sweep.runs()[0]
    run.result_file.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        run.result()
    assert str(caught.value).startswith(f"{run.result_file}: {expected}")
    assert not run.is_done()


@pytest.mark.parametrize(
    "content", [7, {}, {"job_name": "x"}, {"job_name": "x", "tasks": [["../y"]]}, {"job_name": ["x"], "job_id": "1"}]
)
def test_a_line_of_submissions_of_another_shape(sweep: SweepDir, small: Callable[..., Config], content: object) -> None:
    append_lines(sweep.submissions_file, [{"job_name": "relay", "tasks": [["a"]]}])
    write_line(sweep.submissions_file, content)
    for use in (
        lambda: submissions(sweep),
        lambda: show_status(small().paths, sweep.name),
        lambda: cancel_runs(small().paths, sweep.name),
        lambda: show_logs(small().paths, sweep.runs()[0].label, follow=False),
    ):
        with pytest.raises(RunError, match=r"submissions\.jsonl: line 2: "):
            use()


@pytest.mark.parametrize(
    "content",
    [{}, {**CELL, "name": ".."}, {**CELL, "name": 3}, {**CELL, "overrides": []}, {**CELL, "overrides": {"run": "x"}}],
)
def test_a_line_of_cells_of_another_shape(sweep: SweepDir, content: object) -> None:
    write_line(sweep.cells_file, content)
    with pytest.raises(RunError, match=r"cells\.jsonl: line 2: .*--fresh"):
        sweep.cells()


def test_an_owner_file_of_another_shape_stops_what_nobody_can_tell_the_owner_of(sweep: SweepDir) -> None:
    with sweep.runs()[2].owned() as run:
        run.owner_file.write_text("[]")
        with pytest.raises(RunError, match=r"\.owner\.json: must be an object"):
            run.record_attempt(1, start=1.0)


def test_unknown_keys_are_no_error_and_a_torn_last_line_is_passed_over(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    run.record_attempt(1, start=1.0, new={"a": [1]})
    for torn in (b'{"attempt": 2, "sta', b"\0\0\0", b"\xff\xfe", b"[" * 9000):
        with run.attempts_file.open("ab") as file:
            file.write(torn)
        assert run.attempts() == (Attempt(1, 1.0),)
        run.record_attempt(1, first_step=1)
        assert run.attempts() == (Attempt(1, 1.0, first_step=1),)
        run.attempts_file.write_bytes(run.attempts_file.read_bytes().partition(b"\n")[0] + b"\n")
    run.attempts_file.write_bytes(run.attempts_file.read_bytes().rstrip())  # Only the line break is lost.
    run.record_attempt(1, end=2.0, cause="TIMEOUT")
    assert run.attempts() == (Attempt(1, 1.0, end=2.0, cause="TIMEOUT"),)


def test_every_fact_of_an_attempt_has_a_rule_and_every_rule_a_fact() -> None:
    facts = {field.name for field in fields(Attempt)}
    assert facts - {"number"} == AttemptLine.__annotations__.keys() - {"attempt"}


def test_attempts_are_parsed_again_only_if_their_file_has_changed(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sweep.runs()[2]
    parsed: list[Path] = []

    def parse(path: Path, lines: Any) -> tuple[Attempt, ...]:
        parsed.append(path)
        return join_lines(path, lines)

    monkeypatch.setattr(rundir, "join_lines", parse)
    assert run.attempts() == ()
    run.record_attempt(1, start=1.0)
    assert run.attempts() is RunDir(run.path).attempts()
    run.record_attempt(1, end=2.0, cause="TIMEOUT")
    assert run.attempts() == run.attempts() == (Attempt(1, 1.0, end=2.0, cause="TIMEOUT"),)
    assert parsed == [run.attempts_file] * 2
    # Replaced by a file of the same size and time, as a restore from a backup does.
    facts, text = run.attempts_file.stat(), run.attempts_file.read_text().replace("2.0", "3.0")
    (run.path / "restored").write_text(text)
    os.utime(run.path / "restored", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (run.path / "restored").replace(run.attempts_file)
    assert run.attempts()[0].end == 3.0


def test_cells_are_parsed_again_only_if_their_file_has_changed(sweep: SweepDir) -> None:
    first = sweep.cells()
    assert SweepDir(sweep.path).cells() is first
    replace_file(sweep.cells_file, sweep.cells_file.read_text().replace(first[0].key, "0" * len(first[0].key)))
    assert sweep.cells()[0].key == "0" * len(first[0].key)
    assert sweep.cells()[1:] == first[1:]


@pytest.mark.parametrize("damage", [b'{"attempt": 2, "sta', b"\0\0\0", b"\xff\xfe", b"[" * 9000, b"null", b"7"])
@pytest.mark.parametrize("after", [b"\n", b'\n{"attempt": 1, "step": 1, "epoch": 1.0, "time": 1.0, "job_name": "x"'])
def test_only_the_last_line_may_be_torn(sweep: SweepDir, damage: bytes, after: bytes) -> None:
    run = sweep.runs()[2]
    readers: dict[Path, Callable[[], object]] = {
        run.attempts_file: run.attempts,
        run.metrics_file: run.metrics,
        sweep.submissions_file: lambda: submissions(sweep),
        sweep.cells_file: sweep.cells,
        run.provenance_file: lambda: read_lines(run.provenance_file),
    }
    for path, read in readers.items():
        whole = path.read_bytes() if path.exists() else b""
        path.write_bytes(whole + damage + after)
        number = whole.count(b"\n") + 1
        with pytest.raises(RunError, match=rf"{path.name}: line {number}: .*restore it"):
            read()
        path.write_bytes(whole)
    run.metrics_file.write_bytes(damage + after)
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 1: "):
        run.last_metrics()


def test_steps_that_go_back_are_damage(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    append_lines(run.metrics_file, [{**ROW, "step": step} for step in (1, 3, 3, 2)])
    with pytest.raises(RunError, match=r"metrics\.jsonl: its steps decrease"):
        run.metrics()


def test_an_error_that_names_a_file_of_no_text_is_read_back(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    run.record_attempt(1, start=1.0, end=2.0, cause="CRASHED", error="no file \udcff")
    assert run.attempts()[0].error == "no file ?"


def test_an_attempt_whose_start_was_lost(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    run.record_attempt(3, end=2.0, cause="TIMEOUT")
    with pytest.raises(RunError, match=r"attempts\.jsonl: attempt 3 has no start"):
        run.attempts()


def damage_attempts(run: RunDir) -> None:
    write_line(run.attempts_file, [])


def damage_result(run: RunDir) -> None:
    run.result_file.write_text('{"status": "done", "best": 3}')


def damage_metrics(run: RunDir) -> None:
    run.record_attempt(1, start=1.0)
    write_line(run.metrics_file, {"step": "x"}, 1)


@pytest.mark.parametrize("damage", [damage_attempts, damage_result, damage_metrics])
def test_a_damaged_run_hides_no_other(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str], damage: Callable[[RunDir], None]
) -> None:
    run = sweep.runs()[2]
    damage(run)
    status = sweep_status(sweep, {})
    assert [row.state for row in status.rows] == ["done", "done", "damaged", "new"]
    assert status.rows[2].error.startswith(("attempts.jsonl: line 2: ", "result.json: ", "metrics.jsonl: line 1: "))
    assert run.damage() in status.summary()
    assert "1 damaged" in status.summary()
    assert status.summary().count("retry") == 0
    by_state = classify_runs(sweep, {})
    assert [r.name for r in by_state.to_submit] == [sweep.runs()[3].name]
    assert list(by_state.blocked) == [run]
    assert by_state.failed() == []
    with pytest.raises(RunError, match=r"2: |result\.json|line 1"):
        retry(small().paths, run.label, "local", None)
    show_status(small().paths, None)
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [damage_attempts, damage_result])
def test_a_damaged_run_is_a_row_of_the_tables_with_its_message(
    sweep: SweepDir, tmp_path: Path, damage: Callable[[RunDir], None]
) -> None:
    damage(sweep.runs()[0])
    rows = collect(sweep, tmp_path / "artifacts").table.rows
    assert [row["state"] for row in rows] == ["damaged", "done", "new", "new"]
    assert rows[0]["error"] == sweep.runs()[0].damage() or "line 2" in rows[0]["error"]
    assert rows[1]["error"] is None
    assert "damaged" in sweep.table_file("md").read_text()


def test_whole_sweeps_have_no_column_of_errors(sweep: SweepDir) -> None:
    assert not any("error" in row for row in read_table(sweep).rows)


def test_a_curve_that_cannot_be_read_is_left_out_of_the_figure(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_line(sweep.runs()[0].metrics_file, 3, 1)
    collect(sweep, tmp_path / "artifacts")
    said = capsys.readouterr()
    assert f"not in the figure: {sweep.runs()[0].metrics_file}: line 1" in said.err
    assert (tmp_path / "artifacts" / f"{sweep.name}_curves.png").is_file()


@pytest.mark.parametrize("damage", [damage_attempts, damage_result])
def test_a_launch_leaves_out_the_damaged_run_and_executes_the_others(
    sweep: SweepDir, damage: Callable[[RunDir], None], capsys: pytest.CaptureFixture[str]
) -> None:
    executed = []

    def execute(run: RunDir, *given: object) -> Any:
        executed.append(run.name)
        from relay.runs.lifecycle import Outcome

        run.write_result({"steps": 1})
        return Outcome("done", 0, 1, 1)

    names = [run.name for run in sweep.runs()]
    damage(sweep.runs()[2])
    execute_here(sweep, replace(GRID, execute=execute))
    assert re.search(rf"error: .*{names[2]}.*(attempts\.jsonl: line 2|result\.json): ", capsys.readouterr().err)
    assert executed == names[3:]


OTHERS = {
    "Weights & Biases": "program: train.py\nmethod: bayes\nmetric: {name: loss, goal: minimize}\n",
    "empty": "",
    "a list": "[1, 2]",
    "no YAML": "{: :",
    "no text": "\0",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_the_sweep_of_another_program_is_passed_over_in_one_line(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    config = small()
    other = SweepDir(sweep.path.parent / "wandb")
    other.path.mkdir()
    other.meta_file.write_text(content)
    assert sweeps(sweep.path.parent) == [sweep]
    said = capsys.readouterr().err
    assert said[len("12:30:59 ") :] == f"warning: skipped: {other.path}: its sweep.yaml is another program's\n"
    assert find_named(sweep.path.parent, None) == (sweep, None)
    request = grid_request(config)
    assert find_sweep(sweep.path.parent, "grid", request.key) == sweep
    launch(grid_request(config), "local", dry_run=True)


CALL = {"module": "hpc.launch", "arguments": ["grid"], "options": [], "cluster": None}
DAMAGES = {
    "created: 5": {"created": 5},
    "number: 0": {"number": 0},
    "number: newest": {"number": "newest"},
    "cells: abc": {"cells": "abc"},
    "kind: list": {"kind": ["grid"]},
    "config: text": {"config": "x"},
    "snapshot: path": {"snapshot": "../../x"},
    "config: list": {"config": [1]},
    "config: a section that is none": {"config": {"metrics": [1]}},
    "created: section": {"created": {}},
    "key: number": {"key": 5},
    "tag: list": {"tag": ["a"]},
    "code: list": {"code": [1]},
    "code: a commit that is none": {"code": {"commit": {}}},
    "origin: text": {"origin": "x"},
    "origin: a run that is none": {"origin": {"sweep": "x", "run": [1]}},
    "call: list": {"call": [1]},
    "call: words that are none": {"call": {**CALL, "arguments": [[1]]}},
    "call: options that are none": {"call": {**CALL, "options": {"a": 1}}},
    "call: a profile that is none": {"call": {**CALL, "cluster": [1]}},
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_sweep_is_named_with_what_to_do_and_blocks_no_other(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    from relay.config.yaml_file import dump_yaml

    whole = open_sweep(train_request(small()))[0]
    [key] = change
    sweep.meta_file.write_text(dump_yaml({**sweep.meta(), **change}))
    assert sweeps(sweep.path.parent) == [whole]
    said = capsys.readouterr().err
    assert re.match(rf"warning: skipped: {sweep.meta_file}: {key}(\.\w+)*: must be ", said[len("12:30:59 ") :])
    assert said.count("\n") == 1
    assert "restore it, or move the folder away" in said


@pytest.mark.parametrize("key", ["kind", "key", "number", "created", "config"])
def test_a_sweep_without_a_key_is_named(sweep: SweepDir, key: str) -> None:
    from relay.config.yaml_file import dump_yaml

    sweep.meta_file.write_text(dump_yaml({name: value for name, value in sweep.meta().items() if name != key}))
    with pytest.raises(RunError, match=rf"sweep\.yaml: {key}: Field required; "):
        sweep.meta()


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as captured:
        console.print(table_of([{"run": "a", "error": "[/red] of [bold]"}], "[/x]"))
    assert "[/red] of [bold]" in captured.get()
    assert "[/x]" in captured.get()


def test_axes_of_several_types_fit_into_the_tables(sweep: SweepDir, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in sweep.cells_file.read_text().splitlines()]
    for line, value in zip(lines, (1, "a", None, 10**30), strict=True):
        line["overrides"]["train.seed"] = value
    sweep.cells_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    collect(sweep, tmp_path)
    assert "1000000000000000000000000000000" in sweep.table_file("csv").read_text()


def test_values_that_no_figure_can_show_are_refused(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    write_line(run.metrics_file, ROW, 1)
    write_line(run.metrics_file, {**ROW, "val/accuracy": 1e308})
    with pytest.raises(RunError, match=r"line 2: val/accuracy: must be from -1e\+39 to 1e\+39"):
        run.metrics()
    write_line(run.metrics_file, {**ROW, "val/loss": float("inf")})
    assert len(run.metrics()) == 2


def test_a_run_whose_folder_is_gone_is_cancelled_with_the_others(sweep: SweepDir, small: Callable[..., Config]) -> None:
    import shutil

    shutil.rmtree(sweep.runs()[2].path)
    cancel_runs(small().paths, sweep.name)
    assert [run.cancelled() for run in sweep.runs() if not run.is_done()] == [True, True]


def test_cells_that_lack_an_axis_are_not_compared(sweep: SweepDir) -> None:
    from src.outcomes.comparison import compare_axes

    lines = [json.loads(line) for line in sweep.cells_file.read_text().splitlines()]
    del lines[0]["overrides"]["model.num_modules"]
    sweep.cells_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare_axes(sweep, answer_of_sweep(sweep)) == []


def test_cancel_all_says_which_sweep_it_cannot_cancel_and_cancels_the_others(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    other = open_sweep(train_request(small()))[0]
    write_line(sweep.submissions_file, [], 1)
    cancel_runs(small().paths, "all")
    assert f"not cancelled: {sweep.submissions_file}: line 1" in capsys.readouterr().err
    assert other.runs()[0].cancelled()
    assert not sweep.runs()[2].cancelled()


@pytest.mark.parametrize("content", ["", "[1]", "key: x\ncreated: 5\n", "{: :"])
def test_a_damaged_pipeline_is_passed_over(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    config = small()
    first, second = (make_pipeline(asked(config), fresh=True) for _ in range(2))
    (first.path / "pipeline.yaml").write_text(content)
    assert [each.path for each in all_pipelines(second.path.parent)] == [second.path]
    said = capsys.readouterr().err
    assert said[len("12:30:59 ") :].startswith(f"warning: skipped: {first.path / 'pipeline.yaml'}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [7, {}, {"stage": "grid"}, {"stage": "grid", "state": 5}, {"stage": "grid", "state": "done", "sweep": ".."}],
)
def test_a_line_of_stages_of_another_shape(small: Callable[..., Config], content: object) -> None:
    pipeline = make_pipeline(asked(small()), fresh=False)
    pipeline.record_stage(StageRecord("grid", "planned", "grid_search_1"))
    pipeline.record_job("relay-x.1", after="grid")
    assert pipeline.stage_records() == {"grid": StageRecord("grid", "planned", "grid_search_1")}
    append_lines(pipeline.stages_file, [{"stage": "grid", "state": "done", "result": "best k=1", "new": 1}])
    assert pipeline.stage_records()["grid"].result == "best k=1"
    write_line(pipeline.stages_file, content, 4)
    with pytest.raises(RunError, match=r"stages\.jsonl: line 4: .*remove the line"):
        pipeline.stage_records()


def test_an_owner_file_of_any_bytes_is_a_sign_of_life(sweep: SweepDir) -> None:
    run = sweep.runs()[2]
    run.owner_file.write_bytes(b"\xff")
    assert _sign_of_life(run)[1] == b"\xff"
