"""The user of this process, who may have no name and no home: containers run under ids without a passwd entry."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from relay.errors import ConfigError


def user_name() -> str:
    """The user's name, or the id of a user without one."""
    try:
        return getpass.getuser()
    # OSError since Python 3.13.
    except (KeyError, OSError):
        return str(os.getuid())


def why_not_writable(file: Path, error: OSError) -> str:
    """Why this user cannot open `file`, a lock, to write: the file is another user's, or what the system said."""
    if isinstance(error, PermissionError) and file.exists():
        try:
            owner = file.owner()
        except (OSError, KeyError):
            owner = "another user"
        return f"{file} belongs to {owner}, who has to allow you to write it (chmod a+w), or to remove it"
    return error.strerror or str(error)


def home_folder() -> Path | None:
    """The user's home folder; None if there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: str) -> Path:
    """The path with `~` replaced by a home folder. Raises ConfigError if the user that it names has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: {path.partition('/')[0]} has no home folder on {os.uname().nodename}; give the whole path"
        ) from None
