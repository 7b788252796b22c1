"""Lock files that this user cannot open."""

from __future__ import annotations

import errno
from pathlib import Path

import filelock
import pytest

from relay.errors import DataError, RunError
from relay.runs.ownership import hold_lock
from relay.runs.planning_lock import folder_lock
from src.data.cache import _locked


def test_the_lock_of_another_user_is_named_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: filelock.BaseFileLock, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    monkeypatch.setattr(Path, "owner", lambda _: "alice")
    planning, cache, run = tmp_path / ".planning.lock", tmp_path / ".images.lock", tmp_path / ".run.lock"
    locks = {
        planning: (RunError, folder_lock(tmp_path), "set paths.runs_dir to a writable folder"),
        cache: (DataError, _locked(tmp_path / "images"), "set dataset.root to a writable folder"),
        run: (RunError, hold_lock(run, "grid/k=1", 1), "then run the same command again"),
    }
    for file, (error, lock, advice) in locks.items():
        file.touch()
        with pytest.raises(error, match=rf"{file} belongs to alice, who has to allow you .*; .*{advice}"), lock:
            pass
    # Without the file, it is the folder that cannot be written.
    planning.unlink()
    with pytest.raises(RunError, match="cannot be written: Permission denied; set"), folder_lock(tmp_path):
        pass
