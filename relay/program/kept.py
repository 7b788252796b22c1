"""What a program keeps in its checkpoints, and what it forgot to keep."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from relay.errors import CheckpointError, RelayError
from relay.program.serialization import from_bytes, to_bytes

_PLAIN = (type(None), bool, int, float, str, bytes)


class Kept:
    """The objects that a program has given to `keep`, by name."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        """Raises RelayError for an object without a state."""
        for name, value in objects.items():
            problem = _problem_of(value)
            if problem:
                raise RelayError(f"run.keep({name}=…): {problem}")
        self.objects = dict(objects)

    def states(self) -> dict[str, Any]:
        """The state of each object."""
        return {name: _state_of(value) for name, value in self.objects.items()}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Restore each object. Raises CheckpointError if the states are of other objects."""
        if states.keys() != self.objects.keys():
            raise CheckpointError(
                f"run.keep: the checkpoint holds {', '.join(states) or 'nothing'}, and the program now keeps "
                f"{', '.join(self.objects) or 'nothing'}; start over with --fresh"
            )
        for name, value in self.objects.items():
            _restore(value, states[name])

    def check_readable(self) -> None:
        """Raise CheckpointError with the name of an object whose state could not be read back without running code."""
        for name, value in self.objects.items():
            try:
                from_bytes(to_bytes({"state": _state_of(value)}))
            except CheckpointError as error:
                raise _unreadable(name, f"its state {error}; it") from None


def _problem_of(value: Any) -> str:
    if _has_state(value) or _is_generator(value) or isinstance(value, dict):
        return ""
    kind = type(value).__name__
    if kind == "DataLoader":
        return "DataLoader has no state_dict; use run.batches(dataset, …), or StatefulDataLoader of torchdata"
    return (
        f"{kind} has no state_dict and load_state_dict; give those that have one, dicts of plain values, or generators"
    )


def _has_state(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _is_generator(value: Any) -> bool:
    """Of torch (get_state, set_state), numpy (bit_generator) or Python (getstate, setstate)."""
    return (
        (hasattr(value, "get_state") and hasattr(value, "set_state"))
        or hasattr(value, "bit_generator")
        or (hasattr(value, "getstate") and hasattr(value, "setstate"))
    )


def _state_of(value: Any) -> Any:
    if _has_state(value):
        return value.state_dict()
    if isinstance(value, dict):
        return value
    if hasattr(value, "bit_generator"):
        return _lists(value.bit_generator.state)
    if hasattr(value, "getstate"):
        return value.getstate()
    return _lists(value.get_state())


def _restore(value: Any, state: Any) -> None:
    if _has_state(value):
        value.load_state_dict(state)
    elif isinstance(value, dict):
        _restored(value, state)
    elif hasattr(value, "bit_generator"):
        value.bit_generator.state = state
    elif hasattr(value, "setstate"):
        value.setstate(state)
    else:
        value.set_state(tuple(state) if isinstance(state, list) else state)


def _restored(value: Any, state: Any) -> Any:
    """`value` with the content of `state`; a copy of `state` where it cannot be changed.

    In place, because the program may have other names for the lists, dicts and tensors in it. Tensors stay on their
    device.
    """
    if isinstance(value, dict) and isinstance(state, dict):
        content = {name: _restored(value.get(name), part) for name, part in state.items()}
        value.clear()
        value.update(content)
        return value
    if isinstance(value, list) and isinstance(state, list):
        known = [*value, *[None] * len(state)]
        value[:] = [_restored(each, part) for each, part in zip(known, state, strict=False)]
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and isinstance(state, torch.Tensor):
        if value.shape == state.shape and value.dtype == state.dtype:
            with torch.no_grad():
                return value.copy_(state)
        return state.to(value.device)
    return copy.deepcopy(state)


def check_plain(states: Mapping[str, Any]) -> None:
    """Raise CheckpointError with the name of an object whose state holds more than plain values and tensors."""
    for name, state in states.items():
        found = next(_other_values(state), "")
        if found:
            raise _unreadable(name, f"holds {found}, which")


def _unreadable(name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"run.keep({name}=…): {reason} cannot be read back without running code; keep numbers, strings, "
        "lists, dicts and tensors (float(x) of a number of numpy)"
    )


def _lists(state: Any) -> Any:
    """A state of numpy with lists for its arrays, which could not be read back."""
    if isinstance(state, dict):
        return {name: _lists(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return [_lists(part) for part in state]
    return state.tolist() if type(state).__module__ == "numpy" else state


def _other_values(state: Any) -> Iterator[str]:
    """The types in a state that are neither plain values nor tensors."""
    if isinstance(state, dict):
        for name, part in state.items():
            yield from _other_values(name)
            yield from _other_values(part)
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _other_values(part)
    elif not isinstance(state, _PLAIN) or type(state) not in _PLAIN:
        kind = type(state)
        if kind.__module__.partition(".")[0] != "torch":
            yield f"{kind.__module__}.{kind.__name__}"


def forgotten(frame: FrameType | None, kept: Mapping[str, Any]) -> list[str]:
    """The names of local variables of a program that have a state which changes and is not kept.

    Networks and optimizers that are part of a kept object are kept with it. Frozen networks, and those that are not in
    training mode, have no state that changes.
    """
    if frame is None:
        return []
    inside = _identities(kept.values())
    known = dict(frame.f_locals)
    if (own := known.get("self")) is not None and id(own) not in inside:
        # A method: its object's attributes are in sight as well.
        known |= {f"self.{name}": value for name, value in getattr(own, "__dict__", {}).items()}
    return [
        name
        for name, value in known.items()
        if id(value) not in inside and _changes(value) and not (_parts(value) and _parts(value) <= inside)
    ]


def _changes(value: Any) -> bool:
    if isinstance(value, type) or not _has_state(value):
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return value.training and any(parameter.requires_grad for parameter in value.parameters())
    return True


def _identities(values: Iterable[Any]) -> set[int]:
    """Of the kept objects, and of what they reach through attributes, lists and dicts.

    What an optimizer or a schedule of torch refers to is not part of its state.
    """
    torch = sys.modules.get("torch")
    alone = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler) if torch is not None else ()
    found: set[int] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) in found or isinstance(value, (*_PLAIN, type)):
            continue
        found |= {id(value), *_parts(value)}
        if isinstance(value, alone):
            continue
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        else:
            waiting += getattr(value, "__dict__", {}).values()
    return found


def _parts(value: Any) -> set[int]:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.nn.Module):
        return set()
    return {id(part) for part in (*value.modules(), *value.parameters()) if part is not value}
