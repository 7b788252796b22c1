"""A run that is resumed where sums are rounded in another way, and the versions of what is really imported."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.monitor.status_rows import sweep_status
from relay.files import read_lines
from relay.progress import PlainReporter
from relay.results.collection import collect
from relay.results.tables.table import read_table
from relay.runs.environment import computing_versions, cpu_model, differences, environment_marks
from relay.runs.lifecycle import attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import lr_sweep_request, train_request
from src.training.lr_range import sweep_rates
from src.training.trainer import train
from tests.conftest import ROOT, run_python
from tests.training.test_trainer import NEVER, StopAfter, rewrite_newest

SAID = "resumes in another environment"


def run_of(config: Config) -> RunDir:
    return open_sweep(train_request(config))[0].runs()[0]


def execute(run: RunDir, questions: int = NEVER) -> str:
    return attempt(run, train, StopAfter(questions), PlainReporter()).status


def test_a_resume_on_an_older_cpu_is_said_and_marked(
    small: Callable[..., Config], small_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(small())
    assert execute(run, 4) == "stopped"
    assert SAID not in capsys.readouterr().err
    now, older = torch.backends.cpu.get_cpu_capability(), {"ATEN_CPU_CAPABILITY": "default"}
    change = f"cpu_capability {now} -> DEFAULT; ATEN_CPU_CAPABILITY none -> default"
    done = run_python("src.train", "--config", str(small_file), env=older)
    assert done.returncode == 0, done.stderr
    assert f"{run.label}: {SAID} ({change})" in done.stderr
    first, second = (run.result() or {})["environments"]
    assert (first["cpu_capability"], first["cpu"], first["torch"]) == (now, cpu_model(), metadata.version("torch"))
    assert second == {**first, "cpu_capability": "DEFAULT", "ATEN_CPU_CAPABILITY": "default"}
    assert [line["environment"] for line in read_lines(run.provenance_file)] == [first, second]
    collect(run.sweep(), Path(small().paths.artifacts_dir))
    mark = f"resumed under {change}"
    (row,) = csv.DictReader(run.sweep().results_file("table.csv").read_text().splitlines())
    (told,) = json.loads(run.sweep().results_file("aggregate.json").read_text())["rows"]
    assert row["environment"] == told["environment"] == mark
    assert mark in run.sweep().results_file("table.md").read_text()


def resumed_with(change: Callable[[dict[str, str]], object]) -> Callable[[RunDir, pytest.MonkeyPatch], None]:
    """The state was saved in an environment that `change` turns the present one into."""

    def apply(run: RunDir, _: pytest.MonkeyPatch) -> None:
        def rewrite(state: dict[str, Any]) -> dict[str, Any]:
            change(state["environments"][0])
            return state

        rewrite_newest(run, rewrite)

    return apply


def without_its_compiler(run: RunDir, _: pytest.MonkeyPatch) -> None:
    def compiled(state: dict[str, Any]) -> dict[str, Any]:
        state["numerics"]["compiled"], state["environments"][0]["compiled"] = True, "True"
        return state

    rewrite_newest(run, compiled)


CHANGES: dict[str, Callable[[RunDir, pytest.MonkeyPatch], object]] = {
    "MKL_CBWR none -> COMPATIBLE": lambda _, patch: patch.setenv("MKL_CBWR", "COMPATIBLE"),
    "NVIDIA_TF32_OVERRIDE none -> 0": lambda _, patch: patch.setenv("NVIDIA_TF32_OVERRIDE", "0"),
    "CUBLAS_WORKSPACE_CONFIG :4096:8 -> :16:8": lambda _, patch: patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8"),
    f"torch 1.9.0 -> {metadata.version('torch')}": resumed_with(lambda then: then.update(torch="1.9.0")),
    f"cpu Xeon E5-2650 v2 -> {cpu_model()}": resumed_with(lambda then: then.update(cpu="Xeon E5-2650 v2")),
    "device cuda -> cpu; gpu NVIDIA H100 -> none": resumed_with(
        lambda then: then.update(device="cuda", gpu="NVIDIA H100")
    ),
    "compiled True -> False": without_its_compiler,
    "ONEDNN_MAX_CPU_ISA AVX2 -> none": resumed_with(lambda then: then.update(ONEDNN_MAX_CPU_ISA="AVX2")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_last_digits_marks_a_run_while_it_is_stopped_and_when_it_is_done(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("CC", "no-compiler")
    monkeypatch.setenv("PATH", "")
    run = run_of(small(train__compile=True))
    assert execute(run, 4) == "stopped"
    assert "environment" not in read_table(run.sweep()).rows[0]
    CHANGES[change](run, monkeypatch)
    capsys.readouterr()
    for questions, status in ((3, "stopped"), (NEVER, "done")):
        assert execute(run, questions) == status
        # Once: the third attempt is in an environment that the run knows.
        assert (f"{SAID} ({change})" in capsys.readouterr().err) == (status == "stopped")
        assert read_table(run.sweep()).rows[0]["environment"] == f"resumed under {change}"
        assert sweep_status(run.sweep(), {}).rows[0].environment == f"resumed under {change}"


def test_neither_the_threads_nor_the_cpus_of_a_node_with_the_same_gpu_are_another_environment(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(small())
    assert execute(run, 4) == "stopped"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ONEDNN_VERBOSE", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    assert execute(run) == "done"
    assert SAID not in capsys.readouterr().err
    assert len((run.result() or {})["environments"]) == 1
    on_gpu = {"device": "cuda", "gpu": "NVIDIA H100", "cpu": "EPYC 7763", "cpu_capability": "AVX2"}
    assert differences(on_gpu, {**on_gpu, "cpu": "Xeon 8480", "cpu_capability": "AVX512"}) == ""
    assert differences(on_gpu, {**on_gpu, "gpu": "NVIDIA A100"}) == "gpu NVIDIA H100 -> NVIDIA A100"


def test_a_run_that_starts_over_in_another_environment_has_only_that_one(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(small())
    assert execute(run, 4) == "stopped"
    for state in run.checkpoints.iterdir():
        state.write_bytes(b"damaged")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert execute(run) == "done"
    assert [each["MKL_CBWR"] for each in (run.result() or {})["environments"]] == ["COMPATIBLE"]
    assert "environment" not in read_table(run.sweep()).rows[0]


def test_an_lr_sweep_is_marked_too(small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_sweep(lr_sweep_request(small()))[0].runs()[0]
    assert attempt(run, sweep_rates, StopAfter(4), PlainReporter()).status == "stopped"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert attempt(run, sweep_rates, StopAfter(NEVER), PlainReporter()).status == "done"
    assert read_table(run.sweep()).rows[0]["environment"] == "resumed under MKL_CBWR none -> COMPATIBLE"


def test_runs_of_one_sweep_are_compared_with_the_environment_of_most_of_them() -> None:
    h100, a100 = ({"device": "cuda", "gpu": name} for name in ("H100", "A100"))
    marks = environment_marks({"k=0": [a100], "k=1": [h100], "k=2": [], "k=3": [h100, a100]})
    assert {name: str(mark) for name, mark in marks.items()} == {
        "k=0": "differs from k=1: gpu H100 -> A100",
        "k=3": "resumed under gpu H100 -> A100",
    }
    assert environment_marks({"a": [h100], "b": [h100]}) == environment_marks({}) == {}


def versions_in(folder: Path, *, imported: bool = False) -> dict[str, str]:
    code = f"""
import json
{"import numpy" if imported else ""}
from relay.runs.environment import package_versions
print(json.dumps(package_versions()))
"""
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def put_package(folder: Path, name: str, version: str, *, with_metadata: bool) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
    if with_metadata:
        about = folder / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_version_is_that_of_the_package_that_is_imported(tmp_path: Path) -> None:
    plain = versions_in(tmp_path)
    assert plain["torch"] == metadata.version("torch")
    assert computing_versions() == {name: plain[name] for name in ("python", "torch", "numpy")}
    put_package(tmp_path / "a", "numpy", "0.0.1", with_metadata=True)
    put_package(tmp_path / "b", "numpy", "0.0.2", with_metadata=False)
    put_package(tmp_path / "c", "torch", "0.0.3", with_metadata=True)
    (tmp_path / "d" / "datasets").mkdir(parents=True)
    assert versions_in(tmp_path / "a")["numpy"] == "0.0.1"
    assert versions_in(tmp_path / "b", imported=True)["numpy"] == "0.0.2"
    assert versions_in(tmp_path / "b")["numpy"] == f"unknown, in {tmp_path / 'b'}"
    assert versions_in(tmp_path / "c") == {**plain, "torch": "0.0.3"}
    assert versions_in(tmp_path / "d") == plain, "a folder without code is no package"
