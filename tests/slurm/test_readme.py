"""Runs the commands of the README and the manual, in order, in one shell, in a fresh clone on a real SLURM.

The commands of a user's own project are executed by tests/test_manual.py. Only two things differ here: the demo's
experiment replaces the one that needs the Hub and a GPU, and the cluster of this machine replaces yours.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.one_machine.packages import check_installed
from relay.errors import ClusterError
from tests.manual import ON_SLURM, commands, is_of_a_project, is_run, page
from tests.slurm.conftest import REPOSITORY

pytestmark = pytest.mark.timeout(1500)

SERVERS = ("make tensorboard",)
ELSEWHERE = {
    "configs/config.yaml": "configs/demo.yaml",
    "configs/compare.yaml": "configs/demo.yaml",
    "--cluster h100-mig": "--cluster one-machine",
    "CLUSTER=h100-mig": "CLUSTER=one-machine",
    "k=034": "k=003",
    "hpc.aggregate grid_search": "hpc.aggregate $(ls -d runs/demo_grid_* | head -1)",
    "--out DIR": "--out chosen",
    "hpc.aggregate A B": "hpc.aggregate $(ls -d runs/demo_grid_*/k=00[01]* | head -2)",
    "--metric bbox/AP": "--metric val/accuracy",
    "hpc.aggregate DIR": "hpc.aggregate $(mkdir -p logs_of_others; cp -r runs/demo_grid_*/k=003* logs_of_others; "
    "echo logs_of_others)",
}
SHELL = """
export CONFIG=configs/demo.yaml PATH="$PWD/.venv/bin:$PATH" COLUMNS=100
eval "$(make -s slurm-up)"
"""
# A reader waits for what was submitted, and so does the next command here.
COMMAND = """
{{ {line}; }} > said/{number} 2>&1 </dev/null
echo $? > said/{number}.code
until [ -z "$SLURM_CONF" ] || [ -z "$(squeue --noheader)" ]; do sleep 0.5; done
"""


def manual_commands() -> list[str]:
    """The commands of the pages, in order. What the README shares with a later page is executed there."""
    lines = {name: [line for line in commands(page(name)) if not is_of_a_project(line)] for name in ON_SLURM}
    later = {line for name in ON_SLURM[1:] for line in lines[name]}
    lines[ON_SLURM[0]] = [line for line in lines[ON_SLURM[0]] if line not in later]
    return [line for each in lines.values() for line in each if is_run(line)]


def here(line: str) -> str:
    """The command on the demo's experiment and the cluster of this machine."""
    for there, instead in ELSEWHERE.items():
        line = line.replace(there, instead)
    if line.startswith("python") and "--config" not in line:
        line += " --config configs/demo.yaml"
    if re.match(r"python -m hpc.launch (grid|train|retry)", line) and "--cluster" not in line:
        line += " --cluster one-machine"
    if line.startswith("make") and line != "make demo":
        line = f"CLUSTER=one-machine {line}"
    return f"timeout --signal=INT 30 env {line}" if any(server in line for server in SERVERS) else line


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """The project's files alone, set up."""
    try:
        check_installed()
    except ClusterError as error:
        pytest.skip(str(error))
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    folder = tmp_path / "relay"
    for name in names:
        if name and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "said").mkdir()
    yield folder
    subprocess.run(["make", "-s", "slurm-down"], cwd=folder, check=False, capture_output=True, timeout=120)


def test_every_command_of_the_manual_in_its_order(clone: Path) -> None:
    called = [here(line) for line in manual_commands()]
    assert len(called) > 25
    script = SHELL + "".join(COMMAND.format(line=line, number=number) for number, line in enumerate(called))
    subprocess.run(["bash"], input=script, cwd=clone, text=True, timeout=1400, check=True)
    wrong = []
    for number, line in enumerate(called):
        said, code = (clone / "said" / str(number)).read_text(), int((clone / f"said/{number}.code").read_text())
        print(f"$ {line}\n{said}")
        allowed = {124} if "timeout" in line else {0}
        if code not in allowed or "Traceback" in said:
            wrong.append(f"{line}: exit code {code}\n{said}")
    assert wrong == []
    check_demo(clone)


def check_demo(clone: Path) -> None:
    """The demo's grid is the one in demo_table.csv; its numbers up to what another CPU rounds differently."""
    expected = list(csv.DictReader(Path(__file__).with_name("demo_table.csv").read_text().splitlines()))
    table = min(clone.glob("runs/demo_grid_*/table.csv"))
    rows = {row["run"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert sorted(rows) == sorted(row["run"] for row in expected)
    for row in expected:
        found = rows[row["run"]]
        for column in ("state", "lr", "model.type", "num_modules", "epochs", "steps", "best_epoch"):
            assert found[column] == row[column], (row["run"], column)
        for column in ("val/accuracy", "val/loss", "train/loss", "train/accuracy"):
            assert float(found[column]) == pytest.approx(float(row[column]), abs=0.03), (row["run"], column)
