"""Two runs or two sweeps, compared on demand: their difference on the same images, and that of their configurations.

Two sweeps are compared setting by setting where all settings of one are also those of the other: nothing was selected,
and the intervals hold for all of these settings together. Otherwise their leading settings are compared, whose values
were selected. What cannot be paired image by image is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from relay.errors import RunError
from relay.results.answer import Answer
from relay.results.improvement import between_settings
from relay.results.statistics.image_scores import SCORES
from relay.results.statistics.pairs import Difference, Scope, difference_of, verdict_text, verdicts
from relay.results.tables.table import Row, SettingResults
from relay.runs.cells import SEED_AXIS, axis_key
from relay.runs.rundir import RunDir, SweepDir
from relay.terminal import print_rows
from relay.text import counted

# Where results are written decides nothing, and the sections of a search are those of the sweep, not of the run.
_NOT_COMPARED = ("paths", "hparams", "refine", "compare")
_SCOPES = {
    Scope.NETWORKS: "for these networks on new data; other seeds may change it",
    Scope.SETTINGS: "for these settings on new data and with other seeds",
}


@dataclass(frozen=True)
class Side:
    """What was named on the command line: a sweep with its answer, or one of its runs."""

    sweep: SweepDir
    run: RunDir | None
    answer: Answer

    @property
    def label(self) -> str:
        """What it is called."""
        return self.run.label if self.run else self.sweep.name


@dataclass(frozen=True)
class Pairing:
    """A minus B. `compared`: "runs", "settings" that both have, or the "leading" settings.

    `rows`: one per comparison: the axes, `run_a`, `run_b`, `a`, `b`, `difference`, `estimate` (corrected for the choice
    of the epochs), and `low`, `high` and `p_value`, for all comparisons together; they are None where too few
    predictions are wrong. `configuration`: `key`, `a` and `b` of each value that differs.
    """

    a: str
    b: str
    compared: str
    metric: str
    scope: str
    rows: Sequence[Row]
    configuration: Sequence[Row]
    sentences: Sequence[str]

    def json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def show(self) -> None:
        """Print it."""
        print(f"A: {self.a}\nB: {self.b}")
        if len(self.rows) > 1:
            print_rows(self.rows, f"{self.metric}, A minus B")
        for sentence in self.sentences:
            print(sentence)
        if self.configuration:
            print_rows(self.configuration, "What differs in their configurations")
        else:
            print("Their configurations are equal.")


def pair(first: Side, second: Side) -> Pairing:
    """`first` minus `second`. Raises RunError if they cannot be paired."""
    sides = [_single(side) for side in (first, second)]
    if len({side.sweep.path.resolve() / (side.run.name if side.run else "") for side in sides}) == 1:
        raise RunError(f"--pair: both are {sides[0].label}; name two different ones")
    columns = [side.answer.table.select.column for side in sides]
    if columns[0] != columns[1]:
        raise RunError(
            f"--pair: {sides[0].label} was selected by {columns[0]} and {sides[1].label} by {columns[1]}; "
            f"say by which one both are compared: --metric {columns[0]}"
        )
    name = sides[0].answer.table.select.name
    if name not in SCORES:
        known = ", ".join(f"val/{each}" for each in SCORES)
        raise RunError(f"--pair: {columns[0]} is no mean over images, so it has no paired test; try --metric {known}")
    if (sides[0].run is None) != (sides[1].run is None):
        several = next(side for side in sides if side.run is None)
        raise RunError(
            f"--pair compares two runs or two sweeps, and {several.label} is a sweep of "
            f"{counted(len(several.sweep.runs()), 'run')}; name one of them: {several.label}/RUN"
        )
    compared, couples, left_out = _couples(sides[0], sides[1])
    return _compare(sides, compared, couples, left_out)


def _single(side: Side) -> Side:
    """The only run of a sweep of one run in place of the sweep."""
    runs = side.sweep.runs()
    return side if side.run or len(runs) > 1 else Side(side.sweep, runs[0], side.answer)


_Couple = tuple[SettingResults, SettingResults]


def _couples(first: Side, second: Side) -> tuple[str, list[_Couple], str]:
    """What is compared, its pairs of results, and a sentence about what is left out, or ""."""
    if first.run and second.run:
        return "runs", [(_result(first, first.run), _result(second, second.run))], ""
    for side in (first, second):
        if not side.answer.settings:
            raise RunError(f"--pair: no run of {side.label} has finished, so there is nothing to compare yet")
    axes = [{axis for axis in side.answer.table.axes if axis != SEED_AXIS} for side in (first, second)]
    own, theirs = (_by_values(side.answer) for side in (first, second))
    common = [key for key in own if key in theirs]
    if axes[0] == axes[1] and len(common) == min(len(own), len(theirs)):
        rest = len(own) + len(theirs) - 2 * len(common)
        left_out = f"Left out: {counted(rest, 'setting')} that only one of them has finished." if rest else ""
        return "settings", [(own[key], theirs[key]) for key in common], left_out
    return "leading", [(first.answer.settings[0], second.answer.settings[0])], ""


def _by_values(answer: Answer) -> dict[Hashable, SettingResults]:
    axes = sorted(axis for axis in answer.table.axes if axis != SEED_AXIS)
    return {tuple(axis_key(each.rows[0].get(axis)) for axis in axes): each for each in answer.settings}


def _result(side: Side, run: RunDir) -> SettingResults:
    table = side.answer.table
    row = next(row for row in table.rows if row["run"] == run.name)
    if not table.is_comparable(row):
        raise RunError(
            f"--pair: {run.label} has no finished result in {table.select.column} (its state: {row['state']}), so "
            "there is nothing to compare; name a run that is done"
        )
    return SettingResults([row], [row[table.select.column]])


def _compare(sides: Sequence[Side], compared: str, couples: Sequence[_Couple], left_out: str) -> Pairing:
    select = sides[0].answer.table.select
    for couple in couples:
        _check_images(sides, couple)
    found = None if compared == "runs" else [_of_settings(sides, couple) for couple in couples]
    scope = Scope.SETTINGS
    if found is None or None in found:
        # The first seed of each, which was not selected for its value.
        couples = [(_first(a), _first(b)) for a, b in couples]
        found, scope = [_of_networks(sides, couple) for couple in couples], Scope.NETWORKS
    rows = []
    for (a, b), difference, verdict in zip(couples, found, verdicts(found), strict=True):
        names = [axis for axis in sides[0].answer.table.axes if axis != SEED_AXIS] if compared == "settings" else []
        rows.append(
            {axis: a.rows[0].get(axis) for axis in names}
            | {"run_a": a.name, "run_b": b.name, "a": a.mean, "b": b.mean, "difference": a.mean - b.mean}
            | {"estimate": difference.value if difference else None}
            | {name: getattr(verdict, name) if verdict else None for name in ("low", "high", "p_value")}
        )
    if len(couples) == 1:
        (row,), (verdict,), ((a, b),) = rows, verdicts(found), couples
        sentence = f"A minus B: {verdict_text(select.column, a.mean - b.mean, found[0], verdict, scope=scope)}"
        if compared == "leading" and verdict:
            sentence += ", and both were selected for their values"
        sentences = [f"{_title(compared, row)} {sentence}."]
    else:
        differing = sum(each is not None and each.differs for each in verdicts(found))
        sentences = [
            f"Compared setting by setting, {len(couples)} that both have: {differing} differ from 0, "
            f"{len(couples) - differing} cannot be told from 0 {_SCOPES[scope]}. The intervals (95 %) and p values are "
            "for all of them together."
        ]
    sentences += [left_out] if left_out else []
    sentences += [text for text in map(_unfinished, sides) if text]
    configuration = differences_of_configs(
        *(side.sweep.run(each.name).config() for side, each in zip(sides, couples[0], strict=True))
    )
    return Pairing(sides[0].label, sides[1].label, compared, select.column, scope.value, rows, configuration, sentences)


def _title(compared: str, row: Row) -> str:
    if compared == "leading":
        return f"Compared: the leading settings, {row['run_a']} and {row['run_b']}, because the others differ."
    return "Compared: the two runs." if compared == "runs" else "Compared: the only setting that both have."


def _first(setting: SettingResults) -> SettingResults:
    return SettingResults(setting.rows[:1], setting.values[:1])


def _of_settings(sides: Sequence[Side], couple: _Couple) -> Difference | None:
    # `between_settings` takes the second minus the first.
    return between_settings([side.sweep for side in sides][::-1], [side.answer for side in sides][::-1], couple[::-1])


def _of_networks(sides: Sequence[Side], couple: _Couple) -> Difference | None:
    own, theirs = (side.sweep.run(each.name) for side, each in zip(sides, couple, strict=True))
    select = sides[0].answer.table.select
    # The epochs are crossed by the metric that selected them.
    crossed = all(side.sweep.meta()["select"]["column"] == select.column for side in sides)
    return difference_of(own, theirs, select.name, crossed=crossed)


def _check_images(sides: Sequence[Side], couple: _Couple) -> None:
    """Raise RunError unless all runs have predictions of the same images."""
    images: dict[tuple[str, int], str] = {}
    for side, setting in zip(sides, couple, strict=True):
        for row in setting.rows:
            run = side.sweep.run(str(row["run"]))
            found = run.predictions()
            if found is None:
                raise RunError(
                    f"--pair: {run.label} has no {run.predictions_file.name}, so its images cannot be paired; only "
                    "runs that keep what they predicted for each image can be compared"
                )
            images.setdefault((found.images, len(found.label)), f"{run.label} ({len(found.label)} images)")
    if len(images) > 1:
        one, other, *_ = images.values()
        raise RunError(
            f"--pair: {one} and {other} were measured on different images, so they cannot be paired; "
            "evaluate both on the same split of the same data set"
        )


def _unfinished(side: Side) -> str:
    runs = side.sweep.runs()
    undone = len(runs) - sum(run.is_done() for run in runs)
    return f"{side.label}: {undone} of {len(runs)} runs are not done yet." if undone and not side.run else ""


def differences_of_configs(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    """`key`, `a` and `b` of each value that differs, None where one of them has no such key."""
    own, theirs = (
        dict(_values("", {k: v for k, v in each.items() if k not in _NOT_COMPARED})) for each in (first, second)
    )
    keys = [key for key in {**own, **theirs} if own.get(key) != theirs.get(key)]
    return [{"key": key, "a": own.get(key), "b": theirs.get(key)} for key in keys]


def _values(path: str, content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        full = f"{path}.{name}" if path else str(name)
        found += _values(full, value) if isinstance(value, Mapping) and value else [(full, value)]
    return found
