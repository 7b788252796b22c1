"""The states of the random generators that a run uses."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

# How the names of their states begin where a person reads them.
GENERATOR_OF = "the generator of "


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global generators that a run on `device` uses: `cpu`, and `cuda` on a GPU; uint8 each."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    import torch

    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def global_states() -> dict[str, Any]:
    """The states of the global generators of Python, numpy, torch and the current GPU, of those that this process has
    imported: plain values and tensors.
    """
    states: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        import numpy as np

        # The legacy form: the name of the algorithm, 624 words, and where it is in them.
        kind, keys, *rest = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
        states["numpy"] = [kind, keys.tolist(), *rest]
    if "torch" in sys.modules:
        import torch

        in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        states["torch"] = random_state(torch.device("cuda" if in_use else "cpu"))
    return states


def named_states() -> dict[str, Any]:
    """`global_states`, by what a person calls them."""
    return {f"{GENERATOR_OF}{name}": state for name, state in global_states().items()}


def reseed_torch() -> None:
    """Give torch's global generator another seed than in any earlier process, unless it was given one.

    Those of Python and numpy begin otherwise in each process, torch's with the same seed.
    """
    if "torch" in sys.modules:
        import torch

        if torch.initial_seed() == torch.Generator().initial_seed():
            torch.seed()


def set_global_states(states: dict[str, Any]) -> None:
    """Restore what `global_states` returned. Imports the packages whose generators are in it."""
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))
    if "numpy" in states:
        import numpy as np

        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    if "torch" in states:
        import torch

        set_random_state(states["torch"], torch.device("cuda" if torch.cuda.is_available() else "cpu"))
