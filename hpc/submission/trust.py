"""Whose files a command executes: only its user's own, unless --trust is given.

A run directory holds code (the snapshot), and a profile holds shell commands (`setup:`). In a shared folder another
user may have made them. git(1) refuses a repository of another user for the same reason (safe.directory).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay import hints
from relay.errors import RunError
from relay.runs.code_snapshot import PROJECT_ROOT
from relay.runs.rundir import SweepDir

# --trust was given to this process.
_given = False


def trust_others(given: bool) -> bool:
    """The callback of --trust: from now on, files of other users are executed."""
    global _given
    _given = given
    return given


def trust_option() -> list[str]:
    """`--trust`, if this process got it, for a command that continues its work."""
    return ["--trust"] if _given else []


def check_sweep(sweep: SweepDir) -> None:
    """`check_folder` for a sweep."""
    check_folder(sweep.path, sweep.meta())


def check_folder(folder: Path, saved: Mapping[str, Any]) -> None:
    """Raise RunError if a sweep or pipeline, or the code in it, belongs to another user and --trust was not given.

    `saved`: its sweep.yaml or pipeline.yaml.
    """
    _check(_of_sweep(folder), {os.geteuid()}, f"to start your own: {hints.again('--fresh', saved=saved)}")


def check_profile(path: Path) -> None:
    """Raise RunError if a profile belongs neither to the user nor to the owner of this checkout, without --trust.

    The code of the checkout runs in any case, so the profiles of its owner add no danger.
    """
    checkout = (PROJECT_ROOT / "hpc").stat().st_uid
    _check([path], {os.geteuid(), checkout}, "copy it to use your own")


def _of_sweep(folder: Path) -> Iterator[Path]:
    """A sweep or pipeline, its own files and its code, without its runs: their files are validated, not executed."""
    yield folder
    yield from (path for path in folder.iterdir() if not path.is_dir() or path.name in ("code", "jobs"))
    for parent, folders, files in os.walk(folder / "code"):
        yield from (Path(parent) / name for name in (*folders, *files))


def _check(paths: Iterable[Path], owners: set[int], instead: str) -> None:
    if _given:
        return
    for path in paths:
        # A link as well as what it points to: both decide what is executed.
        found = {path.lstat().st_uid, *([path.stat().st_uid] if path.exists() else [])} - owners
        if found:
            owner = min(found)
            raise RunError(
                f"{path}: belongs to {_name(owner)}, and this command runs as {_name(os.geteuid())}; it would execute "
                f"what that user wrote (code, and setup: of a profile); {instead}; if you trust that user: "
                f"{hints.again('--trust')}"
            )


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user id {uid}"
