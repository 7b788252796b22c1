"""What `install` does and refuses, with an apt-get and a dpkg-query of the test's own: nothing is ever installed."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.one_machine import packages
from hpc.one_machine.__main__ import app
from relay.cli import run_app

UPDATE = "-q update"
INSTALL_ALL = f"-q install -y --no-install-recommends {' '.join(packages.PACKAGES)}"


@dataclass(frozen=True)
class Debian:
    """A machine whose PATH holds nothing but what a test puts there. `policy` stands for policy-rc.d."""

    programs: Path
    policy: Path
    calls: Path

    def add_dpkg(self, *installed: str) -> None:
        lines = [f"echo 'installed {package}'" for package in installed]
        self._add("dpkg-query", "echo 'config-files munge'", *lines, "exit 1")

    def add_apt(self, *, fails_at: str = "nothing") -> None:
        note_call = f'echo "$*" >> "{self.calls}"'
        note_policy = f'while read -r line; do echo "policy: $line" >> "{self.calls}"; done < "{self.policy}"'
        self._add("apt-get", "echo apt speaks", note_call, note_policy, f'if [ "$2" = {fails_at} ]; then exit 100; fi')

    def _add(self, name: str, *lines: str) -> None:
        path = self.programs / name
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    def apt_calls(self) -> list[str]:
        """Each call's arguments, each followed by the lines that policy-rc.d had meanwhile."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    machine = Debian(programs=tmp_path / "bin", policy=tmp_path / "policy-rc.d", calls=tmp_path / "calls")
    machine.programs.mkdir()
    monkeypatch.setenv("PATH", str(machine.programs))
    monkeypatch.setattr(packages, "POLICY", machine.policy)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["hpc.one_machine", "install"])
    return machine


def install() -> object:
    """The exit code of `python -m hpc.one_machine install`."""
    with pytest.raises(SystemExit) as end:
        run_app(app)
    return end.value.code


def errors(capture: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr, without the time; nothing may be on stdout, which a shell evaluates."""
    output = capture.readouterr()
    assert output.out == ""
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in output.err.splitlines()]


@pytest.mark.parametrize("has_dpkg", [False, True])
def test_without_apt_it_says_what_to_install_by_hand(
    debian: Debian, capfd: pytest.CaptureFixture[str], has_dpkg: bool
) -> None:
    if has_dpkg:
        debian.add_dpkg()
    assert install() == 2
    (message,) = errors(capfd)
    assert message.startswith("error: install needs apt-get (Debian, Ubuntu), which is not on this machine. ")
    assert "Install slurmctld, slurmd, slurmdbd, munge and MariaDB with this system's package manager" in message


def test_without_root_it_refuses_before_it_calls_apt(
    debian: Debian, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.add_dpkg("slurmd")
    debian.add_apt()
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert install() == 2
    (message,) = errors(capfd)
    assert message.startswith("error: install needs root: sudo ")
    assert debian.apt_calls() == []


def test_with_everything_there_it_needs_no_root(
    debian: Debian, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.add_dpkg(*packages.PACKAGES)
    debian.add_apt()
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert install() == 0
    assert errors(capfd) == ["all packages are already installed"]
    assert debian.apt_calls() == []


def test_it_installs_only_what_is_missing_and_lets_no_service_start(
    debian: Debian, capfd: pytest.CaptureFixture[str]
) -> None:
    """munge is known to dpkg, but as removed with its configuration kept."""
    debian.add_dpkg(*(package for package in packages.PACKAGES if package not in {"munge", "slurmd"}))
    debian.add_apt()
    assert install() == 0
    policy = ["policy: #!/bin/sh", "policy: exit 101"]
    call = "-q install -y --no-install-recommends slurmd munge"
    assert debian.apt_calls() == [UPDATE, *policy, call, *policy]
    assert not debian.policy.exists()
    assert errors(capfd).count("apt speaks") == 2


def test_a_policy_that_is_there_already_is_kept(debian: Debian, capfd: pytest.CaptureFixture[str]) -> None:
    debian.add_dpkg()
    debian.add_apt()
    debian.policy.write_text("of somebody else\n")
    assert install() == 0
    assert debian.apt_calls() == [UPDATE, "policy: of somebody else", INSTALL_ALL, "policy: of somebody else"]
    assert debian.policy.read_text() == "of somebody else\n"
    assert errors(capfd)[0] == f"{debian.policy} already exists and decides whether packages start their services"


@pytest.mark.parametrize(("fails_at", "calls"), [("update", [UPDATE]), ("install", [UPDATE, INSTALL_ALL])])
def test_an_apt_that_fails_ends_it_and_leaves_no_policy(
    debian: Debian, capfd: pytest.CaptureFixture[str], fails_at: str, calls: list[str]
) -> None:
    debian.add_dpkg()
    debian.add_apt(fails_at=fails_at)
    assert install() == 2
    assert [line for line in debian.apt_calls() if not line.startswith("policy: ")] == calls
    assert errors(capfd)[-1] == f"error: apt-get {fails_at} ended with exit code 100; its message is above"
    assert not debian.policy.exists()
