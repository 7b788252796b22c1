"""Texts of others are shown without what a terminal would obey, wherever they come out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config.yaml_file import dump_yaml
from relay.log import log
from relay.results.tables.table_files import csv_text, write_rows
from relay.runs.sweeps import open_sweep
from relay.text import printable
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import fake, run_python
from tests.results.tables.test_table import finish

# Colours, the window's title, C1 controls, a line that overwrites itself, marks of direction, a zero-width space.
HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\x90q\rover\x08\x7f\u202egnp.exe\u2066\u200bend"
UNSAFE = [char for char in HOSTILE if not (char.isascii() and char.isprintable())]


def unsafe_in(text: str) -> list[str]:
    return [char for char in UNSAFE if char in text]


def test_line_breaks_and_letters_of_all_scripts_stay() -> None:
    text = "a\tb\nÉté, 95\u00a0%, 図, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert printable(text) == text
    assert unsafe_in(printable(HOSTILE)) == []
    assert printable("\udcff\x00") == "  "


def test_the_log_is_clean_in_jobs_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.warning(f"SLURM refuses: {HOSTILE}")
    said = capsys.readouterr().err
    assert "red" in said
    assert unsafe_in(said) == []


def test_errors_names_and_refusals_are_clean_in_what_commands_print(
    small: Callable[..., Config], tmp_path: Path, commands: Path
) -> None:
    config = small(hparams={"lr": [0.001, 0.01]})
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config.to_dict()))
    sweep, _ = open_sweep(grid_request(config))
    first, second = sweep.runs()
    finish(first, 0.5)
    second.record_attempt(1, start=1.0, job="7")
    second.record_attempt(1, end=2.0, cause="CRASHED", error=HOSTILE)
    sweep.path.rename(sweep.path.with_name(f"grid\x1b[2J\u202e{sweep.name}"))
    for name in ("squeue", "sacct", "scancel", "sinfo", "scontrol"):
        fake(commands, name, "")
    fake(commands, "sbatch", "printf 'sbatch: error: \\033[31m\\xc2\\x9bno\\r\\xe2\\x80\\xae' >&2; exit 1")
    calls = {
        "status": ("hpc.launch", "status"),
        "aggregate": ("hpc.aggregate",),
        "json": ("hpc.aggregate", "--json"),
        "refused": ("hpc.launch", "grid", "--cluster", "h100-mig", "--fresh"),
        "no such name": ("hpc.launch", "logs", HOSTILE.replace("\x00", "")),
    }
    for words in calls.values():
        done = run_python(*words, "--config", str(path))
        assert "Traceback" not in done.stderr
        assert unsafe_in(done.stdout + done.stderr) == [], (words, done.stdout + done.stderr)
    for file in sweep.path.parent.glob("grid*/*.md"):
        assert unsafe_in(file.read_text()) == []


def test_the_report_is_clean(small: Callable[..., Config], tmp_path: Path) -> None:
    from src.reporting.compose import write_report

    config = small(hparams={"lr": [0.001, 0.01]})
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config.to_dict()))
    sweep, _ = open_sweep(grid_request(config))
    first, second = sweep.runs()
    finish(first, 0.5)
    second.record_attempt(1, start=1.0)
    second.record_attempt(1, end=2.0, cause="CRASHED", error=HOSTILE)
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "comments.yaml").write_text(json.dumps({"M5": HOSTILE}))
    files = write_report(config, str(path), "en", folder).files
    for file in files:
        if file.suffix in (".md", ".html"):
            text = file.read_text()
            assert unsafe_in(text) == []
            assert "gnp.exe" in text


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "-x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_is_a_formula_in_spreadsheets_is_quoted(tmp_path: Path, text: str) -> None:
    (file,) = write_rows(
        [{"run": text, text: 1, "value": -0.5, "shown": "-1e-4", "none": None}], tmp_path / "t", ["csv"]
    )
    header, row = csv.reader(io.StringIO(file.read_text()))
    assert header[1] == row[0]
    assert row[0].startswith("'")
    assert row[0][1:] == text.replace("\r", " ")
    assert row[1:] == ["1", "-0.5", "-1e-4", ""]


def test_names_of_classes_are_quoted_in_rows_and_columns() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(["true", "=a", "b"], [["=a", 3, -1], ["b", 0, 2.5]]))))
    assert rows == [["true", "'=a", "b"], ["'=a", "3", "-1"], ["b", "0", "2.5"]]
