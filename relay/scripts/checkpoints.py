"""The checkpoints of a script: which are there, which are complete, and which is the newest.

A script that is killed may leave a checkpoint that is cut off. To resume from it would end the run, or worse, begin
with half of a state.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay.files import size_of

# Of a suffix, which is no number: h5, pt2.
_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")
# And not the parts of 0.91, which may be a loss.
_WHOLE = re.compile(r"(?<![\d.])\d+(?!\d|\.\d)")
# What Lightning puts behind a name that is there already, such as that of a torn checkpoint: `epoch=1-step=60-v1.ckpt`.
_VERSION = re.compile(r"(?<==)(\d+)-v\d+$")
# Markers such as `done` and `__init__.py` may be empty.
_NEVER_EMPTY = (
    ".pt",
    ".pth",
    ".ckpt",
    ".bin",
    ".safetensors",
    ".json",
    ".npz",
    ".npy",
    ".h5",
    ".keras",
    ".pkl",
    ".tar",
)
# Times of files on a network disk may be off by that.
_CLOCK_S = 2.0
_ZIP = b"PK\x03\x04"
# https://huggingface.co/docs/safetensors: 8 bytes with the size of the header, the header in JSON, the tensors.
_SIZE = struct.Struct("<Q")


@dataclass(frozen=True)
class Checkpoint:
    """A file or folder. `number`: the last one in its name, -1 without one. `written`: when, in s since 1970.

    `highest`: the number of the newest one beside it, which may be incomplete. `written_before`: one beside it with a
    lower number that was written later.
    """

    path: Path
    number: int
    written: float
    highest: int = -1
    written_before: Path | None = None

    def is_newer_than(self, other: Checkpoint | None) -> bool:
        """Whether it was written after the other one, perhaps in its place. Any is newer than none."""
        return other is None or self.path != other.path or self.written > other.written


def find_checkpoints(folder: Path, pattern: str) -> list[Checkpoint]:
    """Those below `folder` that match the pattern, newest first: by number, then by time."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            found.append(Checkpoint(path, number_in(str(path.relative_to(folder)), pattern), _written(path)))
    return sorted(found, key=lambda each: (each.number, each.written), reverse=True)


def number_in(name: str, pattern: str = "*") -> int:
    """The last whole number in the name of a checkpoint, -1 without one: 300 of `out/model_300.h5`.

    A number of the `pattern` itself is none: `resnet18/last.pt` has no number.
    """
    numbers = _WHOLE.findall(_VERSION.sub(r"\1", _SUFFIX.sub("", name)))
    fixed = _WHOLE.findall(_SUFFIX.sub("", re.sub(r"\[[^]]*\]", "", pattern)))
    return int(numbers[-1]) if len(numbers) > len(fixed) else -1


def check_pattern(pattern: str) -> str:
    """Why glob refuses a pattern; "" if it does not."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            list(Path(folder).glob(pattern))
    except (ValueError, IndexError, AttributeError, NotImplementedError) as error:
        return str(error) or "it matches no names"
    return ""


def newest_complete(
    folder: Path, pattern: str, conditions: Sequence[str] = ()
) -> tuple[Checkpoint | None, list[tuple[Checkpoint, str]]]:
    """The newest complete checkpoint, None if there is none; and those that are newer, with what is wrong with each."""
    passed_over: list[tuple[Checkpoint, str]] = []
    found = find_checkpoints(folder, pattern)
    for checkpoint in found:
        problem = why_incomplete(checkpoint.path, conditions)
        if not problem:
            older = [each for each in found if each.number < checkpoint.number]
            last = max(older, key=lambda each: each.written, default=checkpoint)
            before = last.path if last.written > checkpoint.written + _CLOCK_S else None
            return replace(checkpoint, highest=found[0].number, written_before=before), passed_over
        passed_over.append((checkpoint, problem))
    return None, passed_over


def why_incomplete(checkpoint: Path, conditions: Sequence[str]) -> str:
    """Why a checkpoint cannot be used; "" if nothing is wrong with it.

    `conditions`: names of files that a folder must hold, or, beginning with !, must not hold. Of a file, they are what
    must stand behind its name: `.done`. In any case, no file in it may be empty or cut off, as far as its format tells.
    """
    for condition in conditions:
        name = condition.removeprefix("!")
        is_there = Path(f"{checkpoint}/{name}" if checkpoint.is_dir() else f"{checkpoint}{name}").exists()
        if is_there == condition.startswith("!"):
            return f"{name} is there" if is_there else f"{name} is missing"
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file()) if checkpoint.is_dir() else [checkpoint]
    if not files:
        return "it is empty"
    for file in files:
        if problem := _why_cut_off(file, is_alone=file == checkpoint):
            return f"{file.name} {problem}" if file != checkpoint else f"it {problem}"
    return ""


def _why_cut_off(file: Path, *, is_alone: bool) -> str:
    try:
        size = size_of(file)
        if not size:
            return "is empty" if is_alone or file.suffix in _NEVER_EMPTY else ""
        with file.open("rb") as opened:
            begin = opened.read(len(_ZIP))
        # That of torch.save and of numpy's savez; its table of contents is at its end.
        if begin == _ZIP and not zipfile.is_zipfile(file):
            return "is cut off"
        if file.suffix == ".safetensors" and size < _safetensors_size(file):
            return "is cut off"
        if file.suffix == ".json":
            _check_json(file.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "is cut off"
    return ""


def _check_json(content: bytes) -> None:
    """Raise ValueError if it is neither JSON nor lines of it."""
    try:
        json.loads(content)
    except ValueError:
        for line in content.splitlines():
            json.loads(line)


def _safetensors_size(file: Path) -> int:
    """How many bytes the file must have. Raises ValueError if its header is cut off."""
    with file.open("rb") as opened:
        first = opened.read(_SIZE.size)
        if len(first) < _SIZE.size:
            raise ValueError(file)
        (length,) = _SIZE.unpack(first)
        header = json.loads(opened.read(length))
    ends = [tensor["data_offsets"][1] for tensor in header.values() if "data_offsets" in tensor]
    return int(_SIZE.size + length + max(ends, default=0))


def _written(path: Path) -> float:
    """When the last file of a checkpoint was written."""
    files = [path, *(Path(parent, name) for parent, _, names in os.walk(path) for name in names)]
    return max(file.stat().st_mtime for file in files)
