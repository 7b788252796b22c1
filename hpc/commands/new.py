"""`new`: a project that runs, to begin with."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from relay import hints
from relay.errors import RunError

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "char_lm"


def make_project(name: str) -> None:
    """Write a project into a new folder `name`, and print what to do with it. Raises RunError if there is one."""
    folder = Path(name)
    if not re.fullmatch(r"[\w.-]+", folder.name):
        raise RunError(f"new: {name}: give the name of a folder, of letters, digits, _, - and .")
    if folder.exists():
        raise RunError(f"new: {name}: exists already; choose another name")
    shutil.copytree(_EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "runs", "logs", "artifacts"))
    file = folder / "relay.yaml"
    file.write_text(re.sub(r"(?m)^(  name: )\w+", rf'\g<1>"{folder.name}"', file.read_text()))
    commands = (["verify"], ["grid", "--cluster", "local"], ["status"], ["aggregate"])
    called = [hints.python("hpc.launch", *words) for words in commands]
    print(
        f"{folder}: a small language model, and relay.yaml with a grid of 27 runs\n"
        f"next: cd {shlex.quote(str(folder))}\n"
        f"      {called[0]:<40}# may it be interrupted?\n"
        f"      {called[1]:<40}# on this machine; --cluster NAME: on SLURM\n"
        f"      {called[2]:<40}# what runs, what is done\n"
        f"      {called[3]:<40}# the table again"
    )
