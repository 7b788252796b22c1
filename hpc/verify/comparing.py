"""Where two trials of one run differ first."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.verify.trials import Trial
from relay.program.generators import GENERATOR_OF


@dataclass(frozen=True)
class Difference:
    """`names`: what differs first, after so many steps. `resumed`: where the attempt began in which it does; None if
    that is the first attempt.
    """

    step: int
    names: Sequence[str]
    resumed: int | None = None

    def __str__(self) -> str:
        names = ", ".join(self.names)
        if self.resumed == self.step:
            return f"{names}: not what was saved after step {self.step}"
        return f"{names}: other values from step {self.step}"


def unused_generators(trial: Trial) -> list[str]:
    """The global generators from which nothing is drawn: what they hold does not count."""
    seen: dict[str, set[str]] = {}
    for trace in trial.traces:
        for objects in trace.objects.values():
            for name, digest in objects.items():
                seen.setdefault(name, set()).add(digest)
    return [name for name, digests in seen.items() if name.startswith(GENERATOR_OF) and len(digests) == 1]


def unsteady_values(one: Trial, other: Trial, select: str) -> list[str]:
    """The logged values, such as speeds, that differ between two undisturbed trials: they are not compared. Never that
    of `select`, by which runs are compared.
    """
    steps = {*one.rows, *other.rows}
    names = [name for step in sorted(steps) for name in _other(one.rows.get(step, {}), other.rows.get(step, {}))]
    return [f"the logged {name}" for name in dict.fromkeys(names) if name != select]


def first_difference(expected: Trial, found: Trial, ignored: Container[str] = ()) -> Difference | None:
    """The first step at which `found` has other objects or logged values than `expected`; None if all are equal.

    `ignored`: the names of what is not compared.
    """
    reference = {step: objects for trace in expected.traces for step, objects in trace.objects.items()}
    differences = []
    for number, trace in enumerate(found.traces):
        resumed = trace.first_step if number else None
        for step, objects in trace.objects.items():
            names = [name for name in _other(reference.get(step, {}), objects) if name not in ignored]
            if names:
                differences.append(Difference(step, names, resumed))
                break
    for step in sorted({*expected.rows, *found.rows}):
        other = _other(expected.rows.get(step, {}), found.rows.get(step, {}), both=False)
        names = [f"the logged {name}" for name in other if f"the logged {name}" not in ignored]
        if names:
            begun = [trace.first_step for trace in found.traces[1:] if trace.first_step < step]
            differences.append(Difference(step, names, max(begun, default=None)))
            break
    columns = _other(expected.columns, found.columns, both=False)
    names = [f"{name} of the result" for name in columns if f"the logged {name}" not in ignored]
    if not differences and names:
        return Difference(found.last_step, names)
    # Of those of one step, the objects come first: they are the cause.
    return min(differences, key=lambda each: each.step, default=None)


def _other(expected: Mapping[str, Any], found: Mapping[str, Any], *, both: bool = True) -> list[str]:
    """The names whose values differ. `both`: of those that both have."""
    names = [name for name in {**expected, **found} if not both or (name in expected and name in found)]
    return [name for name in names if repr(expected.get(name)) != repr(found.get(name))]
