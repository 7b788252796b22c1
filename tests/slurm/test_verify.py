"""`verify --cluster` on a real SLURM: one job on a slice makes the trials, and its page is printed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import yaml_file
from tests.conftest import ROOT, run_python
from tests.programs import WALK, write_project
from tests.slurm.conftest import PROFILE, Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def test_the_trials_are_made_by_one_job(one_machine: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml(PROFILE))
    file = write_project(tmp_path / "mine")

    def verify(*words: str) -> tuple[int, str]:
        given = ["verify", "--config", str(file), "--cluster", str(profile), *words]
        done = run_python("hpc.launch", *given, cwd=tmp_path, env={**one_machine.env, "PYTHONPATH": str(ROOT)})
        return done.returncode, done.stdout + done.stderr

    code, said = verify()
    assert code == 0, said
    assert "a stop is answered in time, the profile warns 30 s before the time limit" in said
    assert "exact: this run may be interrupted anywhere" in said
    assert list(tmp_path.glob(".relay-verify-*")) == []
    (tmp_path / "mine" / "walk.py").write_text(WALK.replace("run.keep(state=state)", "run.keep(other={})"))
    code, said = verify("--steps", "8")
    assert code == 1, said
    assert "not exact: the logged " in said
    assert list(tmp_path.glob(".relay-verify-*/relay-verify-*/*/stopped/output.txt")) != []
    assert verify("--set", "params.size=big")[0] == 2
    assert one_machine.run(["squeue", "--noheader", "-t", "pending,running"]).strip() == ""
