"""What executing a run came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
