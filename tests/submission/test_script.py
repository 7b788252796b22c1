"""What the scripts of jobs do with a profile's `setup`, executed by bash: SLURM itself is not needed for that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpc.submission.profile import Profile
from hpc.submission.script import log_options, script_text, setup_lines, srun_command
from relay.runs.code_snapshot import keep_code

ENDS = "correct setup in the profile, or set ignore_setup_errors: true"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_code(tmp_path_factory.mktemp("code"))


def after(
    setup: Sequence[str], code: Path, folder: Path, command: str = 'echo "ran $VALUE"', *, ignored: bool = False
) -> subprocess.CompletedProcess[str]:
    """A job's script of the setup and the command, executed."""
    profile = Profile(executor="slurm", setup=tuple(setup), ignore_setup_errors=ignored)
    script = folder / "job.sh"
    script.write_text(script_text({}, [*setup_lines(profile, code), command]))
    return subprocess.run(["/bin/bash", str(script)], capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(
    ("setup", "line", "code_of_line"),
    [
        (["module load cuda/12.4"], "module load cuda/12.4", 127),
        (["true", "conda activate relay", "export VALUE=3"], "conda activate relay", 127),
        (["source /nowhere/activate"], "source /nowhere/activate", 1),
        (["cd /nowhere; true"], "cd /nowhere; true", 1),
        (["true\nls /nowhere\ntrue\n"], "true; ls /nowhere; true", 2),
        (["function module { return 3; }", "module load cuda"], "module load cuda", 3),
        (["for i in 1 2; do [ $i = 1 ]; done"], "for i in 1 2; do [ $i = 1 ]; done", 1),
        (["set -e", "(exit 5)"], "(exit 5)", 5),
        (["set -u", "export PATH=$NOTHING/bin:$PATH"], "export PATH=$NOTHING/bin:$PATH", 1),
        (["source /nowhere/conda.sh && conda activate relay"], "source /nowhere/conda.sh && conda activate relay", 1),
        (["module load cuda/12.4 && export VALUE=1", "true"], "module load cuda/12.4 && export VALUE=1", 127),
        (["true && { ls /nowhere && true; }"], "true && { ls /nowhere && true; }", 2),
        (["set -e", "false && true"], "false && true", 1),
        (["exit 0"], "exit 0", 0),
        (["if then"], "if then", 2),
        (["cat <<END >/dev/null"], "cat <<END >/dev/null", 0),
        (["echo it's ready"], "echo it's ready", 2),
    ],
)
def test_the_first_line_that_fails_ends_the_task_with_its_text(
    setup: list[str], line: str, code_of_line: int, code: Path, tmp_path: Path
) -> None:
    done = after(setup, code, tmp_path)
    assert done.stdout == ""
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"error: setup: {line}: failed with exit code {code_of_line}; {ENDS}"


@pytest.mark.parametrize(
    "setup",
    [
        ['module() { false; [ -n "$1" ]; }', "module load cuda", "export VALUE=3"],
        ["echo 'false; export VALUE=3' > init.sh", "source ./init.sh"],
        ["[ -f /nowhere ] && source /nowhere", "[[ -d /nowhere ]] && cd /nowhere", "test -f no && cat no", "VALUE=3"],
        ["false || true", "if yes | head -1 | grep -q n; then false; fi", "if false; then false; fi", "VALUE=3"],
        ["set -e", "set -u", "export VALUE=3"],
        ["set -eu; set -o pipefail", "cat <<END >/dev/null\nfalse\nEND", "export VALUE=3  # why"],
        ["VALUE=$(false; echo 3)"],
        ["trap 'true' EXIT", "VALUE=3"],
        [],
    ],
)
def test_what_only_looks_like_a_failure_is_none(setup: list[str], code: Path, tmp_path: Path) -> None:
    done = after(setup, code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran 3\n" if setup else "ran \n", "")


def test_a_profile_may_ignore_what_fails(code: Path, tmp_path: Path) -> None:
    done = after(["module load cuda/12.4", "export VALUE=3"], code, tmp_path, ignored=True)
    assert (done.returncode, done.stdout) == (0, "ran 3\n")


@pytest.mark.parametrize(
    "setup",
    [
        "export PYTHONPATH=SITE",
        "unset PYTHONPATH; cd /",
        "export PYTHONHOME=/usr/nothing",
        "export PYTHONSAFEPATH= PYTHONPATH=/nowhere:",
        "mkdir hpc; touch hpc/__init__.py hpc/slurm.py; export PYTHONPATH=$PWD",
    ],
)
def test_a_task_finds_its_code_whatever_setup_has_set(setup: str, code: Path, tmp_path: Path) -> None:
    which = f"{sys.executable} -c 'import hpc.slurm; print(hpc.slurm.__file__)'"
    done = after([setup], code, tmp_path, which)
    assert done.stdout.strip() == str(code / "hpc" / "slurm.py"), done.stderr


@pytest.mark.parametrize("setup", ["export PATH=/opt/cuda/bin", "PATH=", "export PATH=$HOME"])
def test_a_path_without_tools_is_no_changed_code(setup: str, code: Path, tmp_path: Path) -> None:
    done = after([setup], code, tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("error: setup: a tool is missing in PATH=")


def test_the_files_of_a_task_are_named_by_its_id() -> None:
    folder = Path("/scratch/my jobs")
    assert log_options(folder, array=True)["output"] == "/scratch/my jobs/%A_%a_0_log.out"
    assert log_options(folder, array=False)["error"] == "/scratch/my jobs/%j_0_log.err"
    assert "'--output=/scratch/my jobs/%j_0_log.out'" in srun_command(folder, ["hpc.node.task", "x"], array=False)
