"""What a run is, what runs say, and what code inside a run uses. Knows no experiment and no scheduler.

For a program: `relay.Run`, `relay.Stopped` and `relay.current`. `import relay` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.program.current import current
    from relay.program.run import Run, Stopped

__all__ = ["Run", "Stopped", "current"]


def __getattr__(name: str) -> Any:
    # Late, so that the engine's own modules do not import what only programs use.
    if name in __all__:
        from relay.program import current, run

        return getattr(current if name == "current" else run, name)
    raise AttributeError(f"module 'relay' has no attribute {name!r}")
