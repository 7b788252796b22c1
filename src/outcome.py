"""What executing a run came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# What is done with a result before it is written, so that a run that was stopped in between does it again.
Publish = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """`done`: result.json is written. `stopped`: the state is saved, and executing the run again goes on from it.

    `save_s` is the longest time that a checkpoint took, in seconds; None where none was written.
    """

    status: Literal["done", "stopped"]
    first_step: int
    last_step: int
    total_steps: int
    save_s: float | None = None
