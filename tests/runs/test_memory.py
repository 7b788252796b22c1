"""The peak memory of a run is measured, kept, forecast and compared with what a task gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.submission.forecast import forecast_of, warn_of_memory
from relay.progress import PlainReporter
from relay.runs import memory
from relay.runs.lifecycle import attempt
from relay.runs.memory import most_memory
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request, train_request
from src.training.trainer import train
from tests.conftest import ROOT
from tests.recovery.test_reconcile import PROFILE, SLICE
from tests.training.test_trainer import new_run

PEAKS = """
from relay.runs.memory import peak_memory
before = peak_memory()["host_mb"]
# Written to, so that the kernel has to give it.
taken = bytearray(b"x") * (300 * 2**20)
during = peak_memory()["host_mb"]
del taken
print(before, during, peak_memory()["host_mb"])
"""


def test_the_peak_is_that_of_this_process_and_stays() -> None:
    done = subprocess.run([sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True, check=True)
    before, during, after = map(int, done.stdout.split())
    assert before + 300 <= during <= before + 400
    # The kernel sums its counters up from time to time only.
    assert after > during - 10


def test_the_greatest_peaks_count() -> None:
    peaks = [{"host_mb": 5}, {"host_mb": 9}, {"gpu_mb": 2, "host_mb": 7}]
    assert most_memory(peaks) == {"host_mb": 9, "gpu_mb": 2}
    assert most_memory([{}]) == {}


def test_a_run_keeps_the_peak_of_all_its_attempts(small: Callable[..., Config]) -> None:
    run = new_run(small())
    run.record_attempt(1, start=1.0, end=2.0, cause="TIMEOUT", host_mb=10**6)
    assert attempt(run, train, lambda: False, PlainReporter()).status == "done"
    result = run.result()
    assert result is not None
    assert result["host_mb"] == 10**6
    assert 0 < run.attempts()[1].host_mb < 10**6


def test_the_plan_says_what_a_run_takes_and_warns_if_it_does_not_fit(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small()
    run = open_sweep(train_request(config))[0].runs()[0]
    peaks = {"host_mb": 3000, "gpu_mb": 7000}
    run.record_attempt(1, start=0.0, end=7200.0, cause="DONE", slice=SLICE, save_s=1.0, **peaks)
    run.write_result({"steps": 18})
    grid = grid_request(config)
    forecast = forecast_of(grid, grid.cells, PROFILE)
    assert "memory: a run takes up to 6.8 GB on the GPU and 2.9 GB of host memory, as similar runs did" in str(forecast)
    capsys.readouterr()
    fits = PROFILE.model_copy(update={"slice": "1g.12gb", "mem_gb": 4, "gres": None})
    warn_of_memory(fits, forecast)
    assert capsys.readouterr().err == ""
    warn_of_memory(fits.model_copy(update={"cells_per_job": 2, "runs_per_slice": 2}), forecast)
    said = capsys.readouterr().err
    assert (
        "mem_gb: 4 GB will not be enough: similar runs took 2.9 GB each, and runs_per_slice is 2; set it to 8" in said
    )
    assert "slice: 12gb will not be enough: similar runs took 6.8 GB of GPU memory each, and runs_per_slice" in said
    warn_of_memory(fits.model_copy(update={"slice": "1g.6gb"}), forecast)
    assert "slice: 6gb will not be enough" in capsys.readouterr().err


def test_kills_of_a_cgroup_are_read_from_the_innermost_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job/step/task").mkdir(parents=True)
    (tmp_path / "job/memory.events").write_text("low 0\noom 5\noom_kill 9\n")
    (tmp_path / "job/step/memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    own = tmp_path / "own"
    own.write_text("1:name=x:/elsewhere\n0::/job/step/task\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUP", own)
    assert memory.memory_kills() == 2
    own.write_text("3:memory:/job\n")
    assert memory.memory_kills() == 0
    # Version 1, with and without the empty hierarchy of version 2 beside it.
    control = tmp_path / "memory" / "job" / "memory.oom_control"
    control.parent.mkdir(parents=True)
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert memory.memory_kills() == 4
    own.write_text("9:name=systemd:/\n4:memory:/job/step\n0::/\n")
    assert memory.memory_kills() == 4
