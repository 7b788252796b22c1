"""Checkpoint content to bytes and back: dicts of tensors and plain values. Loading runs no code from the file.

By torch.save if the process uses torch, else by pickle: a program may do without torch.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from collections.abc import Mapping
from typing import Any

from relay.errors import CheckpointError

# Begins what was written without torch.
_PLAIN = b"relay plain values\n"


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Written into memory, so that the checksum and the file are made from the same bytes."""
    if "torch" not in sys.modules:
        return _PLAIN + pickle.dumps(dict(content), protocol=4)
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` or torch.save was given, with tensors on the CPU.

    Raises CheckpointError, with the reason alone, if the data is damaged, or holds more than tensors and plain values.
    """
    if data.startswith(_PLAIN):
        return _unpickled(data[len(_PLAIN) :])
    import torch

    try:
        # weights_only: a pickle may call any function while it is loaded.
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler raises almost anything on damaged bytes.
        raise CheckpointError(_why_not_loaded(error)) from error


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, strings, bytes and numbers only."""

    def find_class(self, module: str, name: str) -> Any:
        raise CheckpointError(f"refused, it holds more than plain values ({module}.{name}), which could run code")


def _unpickled(data: bytes) -> Any:
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"not a complete checkpoint: {error}") from error


def _why_not_loaded(error: Exception) -> str:
    needs = re.search(
        r"(?:GLOBAL|Unsupported (?:global|class)|unrecognized function)[: ]+(?:GLOBAL )?([\w.<> ]+)", str(error)
    )
    if needs:
        what = needs.group(1).split(" was ")[0].strip()
        return (
            f"refused, it holds more than tensors and plain values ({what}), and loading "
            "that could run code; save it again with torch.save({'model_state_dict': model.state_dict()}, path)"
        )
    return "not a complete checkpoint: torch cannot read it; it is truncated, damaged, or another kind of file"
