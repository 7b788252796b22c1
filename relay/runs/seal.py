"""The seal of a finished run: digests in result.json of the result itself and of the files that belong to it.

All of them are of one attempt. A file that was damaged, edited or replaced later does not match its digest and
is rejected. A missing file is not damage: users remove what they no longer need.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relay.config.yaml_file import json_text
from relay.errors import RunError
from relay.runs import records

_RESULT = "result"


def sealed_text(result: Mapping[str, Any], files: Iterable[Path]) -> str:
    """The content of result.json: `result`, and the digests of it and of those of the `files` that exist."""
    digests = {path.name: digest_of(path.read_bytes()) for path in files if path.is_file()}
    return json_text({**result, "seal": {_RESULT: _digest_of_values(json.loads(json_text(result))), **digests}})


def read_sealed(path: Path) -> tuple[dict[str, Any], Mapping[str, str]] | None:
    """The result and its seal; None if there is no result. Raises RunError if it is damaged or was edited."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    result = records.RESULT(path, text)
    values, seal = json.loads(text), result.pop("seal")
    del values["seal"]
    if _digest_of_values(values) != seal.get(_RESULT):
        raise RunError(f"{path}: was changed after it was written; {records.RESULT.advice}")
    return result, seal


def check_content(path: Path, content: bytes, seal: Mapping[str, str]) -> None:
    """Raise RunError if `content`, that of the file at `path`, does not match its digest in the seal."""
    if digest_of(content) != seal.get(path.name):
        raise RunError(
            f"{path}: does not match its digest in result.json: it was damaged or replaced; restore it, or delete "
            f"the folder {path.parent}: the command that made the run then repeats it"
        )


def digest_of(content: bytes) -> str:
    """16 hex digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_of_values(values: Any) -> str:
    return digest_of(json.dumps(values, sort_keys=True).encode())
