"""hpc/setup.sh, with a uv that notes how it is called: which build of torch a machine gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relay.runs.code_snapshot import PROJECT_ROOT

LOCKED = "-r requirements.lock"
pytestmark = pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a driver")

UV = """
case "$1 $2" in
    venv*) mkdir -p "${@: -1}/bin"; touch "${@: -1}/bin/python"; chmod +x "${@: -1}/bin/python";;
    *) echo "$*" >>"$CALLS"
       case "$*" in *"--torch-backend cpu"*) [ -z "$NO_INDEX" ] || { echo "error: no route" >&2; exit 1; };; esac;;
esac
"""


def setup(folder: Path, *commands: str, **variables: str) -> tuple[list[str], str]:
    """The installs of a machine that has these `commands`, without what all of them have; and what was printed."""
    bin_ = folder / "bin"
    bin_.mkdir()
    for name in ("bash", "env", "grep", "mktemp", "rm", "mkdir", "touch", "chmod"):
        (bin_ / name).symlink_to(str(shutil.which(name)))
    for name, text in {"uv": UV, **dict.fromkeys(commands, "exit 0")}.items():
        (bin_ / name).write_text(f"#!{bin_}/bash\n{text}\n")
        (bin_ / name).chmod(0o755)
    calls = folder / "calls"
    own = {"PATH": str(bin_), "PYTHON": sys.executable, "CALLS": str(calls), "NO_INDEX": "", **variables}
    done = subprocess.run(
        ["bash", PROJECT_ROOT / "hpc" / "setup.sh", folder / "venv"],
        cwd=PROJECT_ROOT,
        env={**{name: value for name, value in os.environ.items() if name != "TORCH_BACKEND"}, **own},
        capture_output=True,
        text=True,
        check=True,
    )
    always = f"pip install -q --compile-bytecode --python {folder}/venv/bin/python "
    return [line.removeprefix(always) for line in calls.read_text().splitlines()], done.stdout + done.stderr


def test_a_machine_that_can_have_no_use_for_cuda_gets_the_cpu_build(tmp_path: Path) -> None:
    installs, said = setup(tmp_path)
    assert installs == [f"{LOCKED} --torch-backend cpu"]
    assert "no NVIDIA driver and no sbatch here" in said
    assert "TORCH_BACKEND=auto or cu128 chooses another" in said


def test_where_that_build_is_not_reached_the_locked_one_is_taken(tmp_path: Path) -> None:
    installs, said = setup(tmp_path, NO_INDEX="1")
    assert installs == [f"{LOCKED} --torch-backend cpu", LOCKED]
    assert "not to be had here (no route); torch with CUDA instead" in said


@pytest.mark.parametrize("command", ["sbatch", "nvidia-smi"])
def test_a_login_node_and_a_machine_with_a_gpu_get_cuda(tmp_path: Path, command: str) -> None:
    installs, said = setup(tmp_path, command)
    assert installs == [LOCKED]
    assert "no NVIDIA driver" not in said


def test_a_build_that_the_user_chooses_replaces_what_is_installed(tmp_path: Path) -> None:
    ((words, backend),) = [each.split(" --torch-backend ") for each in setup(tmp_path, TORCH_BACKEND="cu128")[0]]
    assert words.startswith("-r pyproject.toml --extra dev -c ")
    assert backend == "cu128 --reinstall-package torch --reinstall-package torchvision"
