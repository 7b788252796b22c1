"""Commands of a user without a passwd entry and without a home, as in many containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.user import expanded, home_folder, user_name
from src.config.schema import Config
from tests.conftest import ROOT, fake, site_path

UID = 12345
# Root's rights on files, because the interpreter may be in a folder that is closed to others.
RIGHTS = "+dac_override,+dac_read_search"
NOBODY = ["setpriv", "--reuid", str(UID), "--clear-groups", f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)


def as_nobody(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = [*NOBODY, "env", "-i", f"PATH={path}", "PYTHONDONTWRITEBYTECODE=1", sys.executable, *words]
    return subprocess.run(
        [str(shutil.which(command[0])), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> str:
    """A PATH with a SLURM whose accounting writes down what it is asked about users."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake(folder, "scontrol", 'case "$*" in *config*) echo "AccountingStorageType = accounting_storage/slurmdbd";; esac')
    for name in ("sinfo", "squeue", "sacct", "sbatch", "srun"):
        fake(folder, name, "true")
    fake(folder, "sacctmgr", f'echo "$@" >> "{tmp_path}/asked"')
    return site_path(folder)


def test_doctor_and_tensorboard_name_a_user_without_a_name(
    small: Callable[..., Config], tmp_path: Path, site: str
) -> None:
    (tmp_path / "small.yaml").write_text(yaml_file.dump_yaml(small().to_dict()))
    given = ["--config", str(tmp_path / "small.yaml")]
    page = as_nobody("-m", "hpc.launch", "doctor", "--cluster", "h100-mig", *given, path=site)
    assert "Traceback" not in page.stderr
    assert f"show user {UID} withassoc" in (tmp_path / "asked").read_text()
    lines = as_nobody(
        "-c", "from hpc.monitor.tensorboard import access_lines; print(access_lines('http://localhost:6006', '.'))"
    )
    assert f"ssh -N -L 6006:localhost:6006 {UID}@" in lines.stdout, lines.stderr
    space = as_nobody("-c", "from hpc.doctor.node_report import describe_space; print(describe_space()['home_gib'])")
    assert space.stdout == "None\n", space.stderr


@pytest.mark.parametrize("key", ["dataset.root=~/data", "dataset.name=~/images", "dataset.root=~no-such-user/data"])
def test_a_tilde_without_a_home_is_a_mistake_in_the_configuration(
    small: Callable[..., Config], tmp_path: Path, key: str
) -> None:
    (tmp_path / "small.yaml").write_text(yaml_file.dump_yaml(small().to_dict()))
    done = as_nobody("-m", "src.train", "--config", str(tmp_path / "small.yaml"), "--set", key)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    value = key.partition("=")[2]
    assert f"{value}: {value.partition('/')[0]} has no home folder on " in done.stderr
    assert not (tmp_path / "runs").exists()


def test_users_with_a_name_and_a_home_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LOGNAME", "ada")
    assert (user_name(), home_folder(), expanded("~/x")) == ("ada", Path("/home/ada"), Path("/home/ada/x"))
