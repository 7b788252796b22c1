"""Checkpoint content to bytes and back: dicts of tensors and plain values. Loading runs no code from the file."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from relay.errors import CheckpointError


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """`torch.save` into memory, so that the checksum and the file are made from the same bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """`torch.load` onto the CPU. Raises CheckpointError, with the reason alone, if the data is damaged or refused."""
    import torch

    try:
        # weights_only: a pickle may call any function while it is loaded.
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler raises almost anything on damaged bytes.
        raise CheckpointError(_why_not_loaded(error)) from error


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
