"""What a job's element executes: the runs at its place in the file that was written before sbatch was called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.node import task


@pytest.mark.parametrize(
    ("element", "expected"), [("0", ["a", "b"]), ("1", ["c"]), (None, ["a", "b"]), ("", ["a", "b"])]
)
def test_an_element_executes_the_runs_at_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, element: str | None, expected: list[str]
) -> None:
    executed: list[str] = []
    monkeypatch.setattr(task, "execute_runs", lambda runs: executed.extend(run.name for run in runs))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    if element is not None:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", element)
    path = tmp_path / "relay-x.1.json"
    path.write_text(json.dumps([["/r/a", "/r/b"], ["/r/c"]]))
    task.main(path)
    assert executed == expected


@pytest.mark.parametrize("content", [None, "", '[["/r/a"]'])
def test_a_list_that_is_gone_or_torn_ends_the_task_at_once(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "relay-x.1.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as ended:
        task.main(path)
    assert ended.value.code == 3
    assert f"{path}: the list of the runs of this job cannot be read" in capsys.readouterr().err
