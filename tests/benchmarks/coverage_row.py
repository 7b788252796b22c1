"""A row of the table of coverage: a claim in a situation, and one simulated replication of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from relay.results.statistics.intervals import Interval

Random = np.random.Generator


@dataclass(frozen=True)
class Outcome:
    """What one replication found.

    `said`: whether the claim covered the truth, or erred, as the row asks. `used`: the part of its allowance that the
    error took, at most 1 if it covered. `error`: the value that was said, less the truth.
    """

    said: bool
    used: float | None = None
    error: float | None = None


Found = bool | Outcome


@dataclass(frozen=True)
class Row:
    """A claim in a situation. `nominal`: 0.95 for a coverage, 0.05 for an error, None for what nobody promises, such as
    a power.

    `simulate`: one replication: whether the claim covered the truth, or erred.
    """

    claim: str
    situation: str
    nominal: float | None
    simulate: Callable[[Random], Found]

    def rate(self, replications: int, seed: int = 0) -> float:
        """The share of the replications that covered, or erred."""
        random = np.random.default_rng(seed)
        return Tally(self, [outcome_of(self.simulate(random)) for _ in range(replications)]).rate


@dataclass(frozen=True)
class Part:
    """One of several claims that are judged on the same replication."""

    whole: Callable[[Random], Sequence[Found]]
    number: int

    def __call__(self, random: Random) -> Found:
        """One replication, for this claim."""
        return self.whole(random)[self.number]


def rows_of(
    situation: str, claims: Mapping[str, float | None], simulate: Callable[[Random], Sequence[Found]]
) -> list[Row]:
    """Rows of one situation for several claims. `simulate`: one replication, with what it found for each claim."""
    return [
        Row(claim, situation, nominal, Part(simulate, number)) for number, (claim, nominal) in enumerate(claims.items())
    ]


def shared(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that follow each other and share their replications, together."""
    return [list(group) for _, group in itertools.groupby(rows, _replication)]


def _replication(row: Row) -> int:
    return id(row.simulate.whole if isinstance(row.simulate, Part) else row)


def replicate(rows: Sequence[Row], random: Random, replications: int) -> list[list[Outcome]]:
    """For each of these rows, which share their replications, what each replication found."""
    simulate = rows[0].simulate
    if isinstance(simulate, Part):
        found = [simulate.whole(random) for _ in range(replications)]
        return [[outcome_of(each[number]) for each in found] for number in range(len(rows))]
    return [[outcome_of(simulate(random)) for _ in range(replications)]]


def outcome_of(found: Found) -> Outcome:
    """The outcome of a replication that may be a plain yes or no."""
    return found if isinstance(found, Outcome) else Outcome(bool(found))


def held(interval: Interval, value: float, truth: float) -> Outcome:
    """Whether an interval holds the truth. `value`: what was said."""
    low, high = interval
    allowed = high - value if truth > value else value - low
    # The value of an interval that is not symmetric may lie at one of its ends.
    used = abs(truth - value) / allowed if allowed > 0 else float(truth != value) * 2
    return Outcome(low <= truth <= high, used, value - truth)


@dataclass(frozen=True)
class Tally:
    """What the replications of a row found."""

    row: Row
    outcomes: Sequence[Outcome]

    @property
    def rate(self) -> float:
        """The share that covered, or erred."""
        return sum(each.said for each in self.outcomes) / len(self.outcomes)

    @property
    def covers(self) -> bool:
        """Whether the claim is to be right nearly always, rather than wrong seldom."""
        return (self.row.nominal or 0) > 0.5

    @property
    def missed(self) -> bool:
        """Whether a nominal 95 covers less than 93, or a nominal 5 errs more than 7 times in 100."""
        nominal = self.row.nominal
        return nominal is not None and (self.rate < nominal - 0.02 if self.covers else self.rate > nominal + 0.02)

    @property
    def width(self) -> float | None:
        """How many times wider the claim is than one that covers exactly as often as it says; None if not known."""
        used = [each.used for each in self.outcomes if each.used is not None]
        if not used or not self.row.nominal:
            return None
        needed = float(np.quantile(used, self.row.nominal))
        return 1 / needed if needed > 0 else None

    @property
    def bias(self) -> float | None:
        """The mean of what was said, less the truth."""
        errors = [each.error for each in self.outcomes if each.error is not None]
        return float(np.mean(errors)) if errors else None

    def cells(self) -> list[str]:
        """The row of the table in Markdown: shares in percent."""
        nominal, width, bias = self.row.nominal, self.width, self.bias
        return [
            self.row.claim,
            self.row.situation,
            "" if nominal is None else f"{100 * nominal:.0f}",
            f"{100 * self.rate:.1f}" + (" (missed)" if self.missed else ""),
            "" if width is None else f"{width:.2f}",
            "" if bias is None else f"{bias:+.4f}",
        ]
