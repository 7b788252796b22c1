from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from relay.errors import CheckpointError
from relay.files import append_lines, read_lines, replace_file
from relay.program.serialization import to_bytes
from relay.program.states import list_states, load_newest, newest_step, save_state, state_name
from src.training.weights import load_checkpoint
from tests.fork_server import fork_python


def accept(state: object) -> str:
    return ""


def fill(folder: Path, *steps: int, keep: int = 9) -> list[Path]:
    return [save_state(folder, step, {"step": step, "weights": torch.full((50,), float(step))}, keep) for step in steps]


def test_the_newest_state_is_loaded(tmp_path: Path) -> None:
    fill(tmp_path, 3, 20, 100)
    state = load_newest(tmp_path, accept, pytest.fail)
    assert state is not None
    assert state["step"] == 100
    assert torch.equal(state["weights"], torch.full((50,), 100.0))
    assert newest_step(tmp_path) == 100


def test_only_the_newest_states_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2, 3, 4, keep=2)
    assert [path.name[:14] for path in list_states(tmp_path)] == ["step_000000004", "step_000000003"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 512)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty, lengthen])
def test_a_damaged_state_is_named_and_the_one_before_it_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    states = fill(tmp_path, 5, 6)
    damage(states[1])
    said: list[str] = []
    state = load_newest(tmp_path, accept, said.append)
    assert state is not None
    assert state["step"] == 5
    assert len(said) == 1
    assert "step_000000006" in said[0]
    assert "checksum" in said[0]


def test_no_state_is_intact(tmp_path: Path) -> None:
    for path in fill(tmp_path, 1, 2):
        truncate(path)
    said: list[str] = []
    assert load_newest(tmp_path, accept, said.append) is None
    assert len(said) == 2
    assert load_newest(tmp_path / "absent", accept, pytest.fail) is None


def test_a_state_with_a_problem_is_skipped(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)
    said: list[str] = []
    state = load_newest(tmp_path, lambda found: "too new" if found["step"] == 2 else "", said.append)
    assert state is not None
    assert state["step"] == 1
    assert "too new" in said[0]


@pytest.mark.parametrize("content", [b"", b"no pickle", to_bytes({"x": Path("/")}), b"PK\x03\x04"])
def test_an_intact_file_that_is_no_state_is_skipped(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, 1)
    (tmp_path / state_name(2, hashlib.sha256(content).hexdigest())).write_bytes(content)
    said: list[str] = []
    state = load_newest(tmp_path, accept, said.append)
    assert state is not None
    assert state["step"] == 1
    assert said[0].startswith("checkpoint step_000000002 is not used: ")


@pytest.mark.parametrize(
    "weights",
    [
        [1],
        {1: torch.zeros(1)},
        {"weight": [1.0]},
        {"weight": torch.zeros(2, dtype=torch.complex64)},
        {"weight": torch.zeros(2, device="meta")},
        {"weight": None},
    ],
)
def test_weights_of_another_shape_are_refused(tmp_path: Path, weights: object) -> None:
    path = tmp_path / "some.ckpt"
    path.write_bytes(to_bytes({"model_state_dict": weights}))
    with pytest.raises(CheckpointError, match=r"some\.ckpt: .*model_state_dict"):
        load_checkpoint(path)


def test_a_vanished_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="step 7 cannot be written: No such file"):
        save_state(tmp_path / "gone", 7, {"step": 7}, 2)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from relay.program.states import save_state
from relay.errors import CheckpointError
folder = Path(sys.argv[1])
save_state(folder, 1, {"step": 1, "weights": torch.zeros(10)}, 2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_state(folder, 2, {"step": 2, "weights": torch.zeros(100_000)}, 2)
except CheckpointError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_leaves_the_previous_state_intact(tmp_path: Path) -> None:
    """A file size limit of the process stands in for a full disk: the write fails half-way, as with ENOSPC."""
    done = fork_python("-c", FULL_DISK, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "the checkpoint of step 2 cannot be written" in done.stdout
    assert [path.suffix for path in tmp_path.iterdir()] == [".ckpt"]
    state = load_newest(tmp_path, accept, pytest.fail)
    assert state is not None
    assert state["step"] == 1


def test_replacing_a_file_keeps_the_old_one_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    replace_file(path, "old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_line_neither_counts_nor_swallows_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_lines(path, [{"a": 1}])
    with path.open("a") as file:
        file.write('{"a": 2, "b"')
    assert read_lines(path) == [{"a": 1}]
    append_lines(path, [{"a": 3}])
    assert read_lines(path) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize(
    ("offset", "value"),
    [(8, 1), (10, 8), (10, 99), (38, 16)],
    ids=["encrypted", "deflated", "unknown", "a folder, for which torch reads nothing at all"],
)
def test_a_part_of_a_checkpoint_with_a_flag_that_torch_never_sets_is_refused(
    tmp_path: Path, offset: int, value: int
) -> None:
    content = bytearray(to_bytes({"model_state_dict": {"weight": torch.arange(2000.0)}}))
    weights = content.rindex(b"/data/0")
    content[content.rindex(b"PK\x01\x02", 0, weights) + offset] = value
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.ckpt: is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("bit", range(8))
def test_a_file_that_no_longer_begins_as_a_checkpoint_is_refused(tmp_path: Path, bit: int) -> None:
    content = bytearray(to_bytes({"model_state_dict": {"weight": torch.arange(2000.0)}}))
    content[0] ^= 1 << bit
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.ckpt: "):
        load_checkpoint(path)


def test_a_part_that_torch_would_read_from_a_wrong_offset_is_refused(tmp_path: Path) -> None:
    """One flipped bit in the length of a part's name: torch reads the weights 2048 bytes too late."""
    weights = torch.arange(4096.0)
    content = bytearray(to_bytes({"model_state_dict": {"weight": weights, "after": torch.rand(4096)}}))
    header = content.rindex(b"PK\x03\x04", 0, content.index(b"/data/0"))
    content[header + 27] ^= 8
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    read = torch.load(path, weights_only=True)["model_state_dict"]["weight"]
    assert not torch.equal(read, weights), "else this test proves nothing"
    with pytest.raises(CheckpointError, match=r"some\.ckpt: is damaged"):
        load_checkpoint(path)
