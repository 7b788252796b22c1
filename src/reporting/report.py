"""What every section of the report needs: the configuration, the sentences, the runs, and where figures go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay import hints
from relay.errors import RelayError
from relay.files import read_json
from relay.runs.cells import axis_value
from relay.runs.environment import environment_marks, environments_of
from relay.runs.rundir import RunDir
from relay.terminal import show_value
from relay.text import shortlist
from src.artifacts import checks_folder
from src.config.schema import Config
from src.config.validation import axis_name
from src.reporting.blocks import Block, Comment, Figure, Gap, Heading, Items, Paragraph, SourceNote, TableBlock
from src.reporting.finding import SectionSweep, Sweeps, changed_values
from src.reporting.records import CHECKS
from src.reporting.texts import ReportTexts
from src.reporting.words import words_of

# What accepts a draft in comments.yaml.
ACCEPT = "ok"
# Shown only once the user has written them: the facts answer the question.
_OPTIONAL = frozenset({"D5", "D9", "references"})


class MissingRunError(Exception):
    """A run that a section needs does not exist yet. `gap` says which, and the command that makes it."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.text)
        self.gap = gap


@dataclass
class Report:
    """One report that is being written, in the language of `texts`, into `folder`.

    `comments`: the student's own texts by name. `used`: the sweeps that fed a section so far, by name. `drafts`: what
    makes the sentences of a draft answer, by the name of its comment.
    """

    config: Config
    config_file: str
    texts: ReportTexts
    folder: Path
    comments: Mapping[str, str]
    sweeps: Sweeps
    used: dict[str, SectionSweep] = field(default_factory=dict)
    drafts: Mapping[str, Callable[[Report], Iterable[str]]] = field(default_factory=dict)

    def heading(self, level: int, name: str) -> Heading:
        """The heading with the sentence `name`."""
        return Heading(level, self.texts(name), name)

    def say(self, name: str, /, **values: object) -> Paragraph:
        """A paragraph with the sentence `name`."""
        return Paragraph(self.texts(name, **values))

    def ask(self, name: str, answer: Callable[[Report], Iterable[Block]]) -> Iterator[Block]:
        """A numbered question of the report, such as D4, its answer, and the student's comment.

        What cannot be answered, because a run is missing or damaged, is a gap.
        """
        yield Heading(4, f"{name}. {self.texts(f'question_{name}')}", name)
        yield from self.try_to(answer)
        yield from self.comment(name)

    def try_to(self, answer: Callable[[Report], Iterable[Block]]) -> Iterator[Block]:
        """The blocks of `answer`. What it had until a run was missing or damaged is kept; then follows a gap."""
        try:
            yield from answer(self)
        except MissingRunError as missing:
            yield missing.gap
        except (RelayError, OSError) as error:
            yield Gap(self.texts("gap_damaged", error=error))

    def comment(self, name: str) -> Iterator[Comment]:
        """The student's comment, if one is asked for here, or a draft of it. The word `ok` accepts the draft."""
        if not self.texts.has(f"prompt_{name}"):
            return
        text, draft = self.comments.get(name, ""), self._draft(name)
        accepted = text.casefold() == ACCEPT
        if text or draft or name not in _OPTIONAL:
            yield Comment(name, self.texts(f"prompt_{name}"), "" if accepted else text, draft, accepted)

    def _draft(self, name: str) -> list[str]:
        """The sentences of a draft; none where a run is missing or damaged, which the answer above it says."""
        if name not in self.drafts:
            return []
        try:
            return list(self.drafts[name](self))
        except (MissingRunError, RelayError, OSError):
            return []

    def need(self, found: SectionSweep | None, name: str, *words: str) -> SectionSweep:
        """The sweep that was found. Raises MissingRunError with the command `words` if there is none."""
        if found is None or not found.done():
            raise MissingRunError(self.gap(name, *words))
        self.used[found.sweep.name] = found
        return found

    def gap(self, name: str, *words: str) -> Gap:
        """A gap with the sentence `gap_<name>`, and the command that fills it, with the user's configuration."""
        return Gap(self.texts(f"gap_{name}"), [hints.command(*words)])

    def origin(self, *runs: RunDir) -> SourceNote:
        """That the blocks before were read from these runs."""
        return SourceNote(", ".join(run.label for run in runs))

    def about(self, found: SectionSweep) -> Iterator[Block]:
        """That the sweep is not of exactly the requested runs, if it is not, or that it is incomplete."""
        done, total = len(found.done()), len(found.sweep.runs())
        if done < total:
            yield self.say("incomplete", sweep=found.sweep.name, done=done, total=total)
        if not found.exact:
            yield self.say("not_exact", sweep=found.sweep.name)
        yield from self.environments(found)

    def environments(self, found: SectionSweep) -> Iterator[Block]:
        """Which finished runs of the sweep were computed in other environments than the rest, if any were."""
        marks = environment_marks({run.name: environments_of(run.result(), ()) for run in found.done()})
        alike: dict[tuple[str, str], list[str]] = {}
        for name, mark in marks.items():
            alike.setdefault((mark.difference, mark.resumed), []).append(name)
        if marks:
            rows = [[shortlist(names), *mark] for mark, names in alike.items()]
            yield self.say("environments_differ", run=next(iter(marks.values())).usual)
            yield self.table(["run", "start_environment", "resumed_under"], rows)

    def differences(self, other: Config) -> Iterator[Block]:
        """The values in which `other` differs from the report's configuration, if there are any."""
        changed = changed_values(self.config, other)
        if changed:
            rows = [[axis_name(path), shown(own), shown(theirs)] for path, (own, theirs) in changed.items()]
            yield self.say("differs")
            yield self.table(["value", "in_config", "in_run"], rows)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], marked: Sequence[int] = ()) -> TableBlock:
        """A table. `columns`: names of sentences `column_<name>`; a name without a sentence is shown as it is."""
        named = [self.texts(f"column_{name}") if self.texts.has(f"column_{name}") else name for name in columns]
        return TableBlock(named, list(rows), marked)

    def facts(self, values: Mapping[str, object]) -> Items:
        """A list of facts. Labels: sentences `fact_<name>`; a name without a sentence is shown as it is."""
        labels = {name: self.texts(f"fact_{name}") if self.texts.has(f"fact_{name}") else name for name in values}
        return Items([self.texts("fact", label=labels[name], value=value) for name, value in values.items()])

    def drawn(self, name: str, draw: Callable[[Path], Path | None], suffix: str = "") -> Iterator[Figure]:
        """The figure `name` as `draw` makes it, with the sentence `figure_<name>`; nothing if it draws nothing."""
        path = self._figure_file(f"{name}{suffix}")
        if draw(path):
            yield Figure(path, self.texts(f"figure_{name}"))

    def all_drawn(self, folder: str, draw: Callable[[Path], Iterable[Path]]) -> dict[str, Figure]:
        """The figures that `draw` makes in a folder beside the report, by name, with the sentences `figure_<name>`."""
        paths = draw(self._figures / folder)
        return {path.stem: Figure(path, self.texts(f"figure_{path.stem}")) for path in paths}

    def copied(self, name: str, source: Path, caption: str = "") -> Iterator[Figure]:
        """An existing figure, copied beside the report, with the sentence `figure_<caption>`, or that of its name;
        nothing if there is none.
        """
        if source.is_file():
            path = self._figure_file(name)
            shutil.copyfile(source, path)
            yield Figure(path, self.texts(f"figure_{caption or name}"))

    def checks(self) -> dict[str, Any]:
        """The content of checks.json. Raises MissingRunError if there is none, RunError if it is damaged."""
        found = read_json(self.checks_file, CHECKS)
        if found is None:
            raise MissingRunError(self.gap("checks", "src.checks"))
        return found

    def class_name(self, name: str) -> str:
        """The name of a class, in words where it is a WordNet id and the data has them: `goldfish (n01443537)`."""
        word = words_of(self.config.dataset, [name]).get(name)
        return f"{word} ({name})" if word else name

    @property
    def checks_file(self) -> Path:
        """The checks.json of the configuration."""
        return checks_folder(self.config, self.config_file) / "checks.json"

    def _figure_file(self, name: str) -> Path:
        self._figures.mkdir(parents=True, exist_ok=True)
        return self._figures / f"{name}.png"

    @property
    def _figures(self) -> Path:
        # One folder for each language: the figures of a report are in its language, too.
        return self.folder / ("figures" if self.texts.language == "en" else f"figures.{self.texts.language}")


def shown(value: Any) -> str:
    """A value as tables show it: `64-64-64`, `0.4938`, and nothing for None."""
    return show_value(axis_value(value))


def data_name(name: str) -> str:
    """What sentences call a data set: of a folder, its last part."""
    return Path(name).name if name.startswith(("/", "./", "../", "~")) else name


def state_text(report: Report, state: str) -> str:
    """The state of a run in the language of the report."""
    return report.texts(f"state_{state}") if report.texts.has(f"state_{state}") else state


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent; the space before the sign may not be broken."""
    return f"{100 * share:.{digits}f}\u00a0%"


def signed(value: float | None) -> str:
    """A difference with its sign; nothing for None."""
    return "" if value is None else f"{value:+.4f}"


def verdict_sentence(report: Report, found: Mapping[str, Any]) -> str:
    """Whether a difference can be told from 0: `estimate`, `low`, `high` and `crossed` of results/statistics/pairs.py;
    and `scope`, if that is not these two networks.
    """
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return report.texts("no_interval")
    names = ("told_settings", "not_told_settings") if found.get("scope") == "settings" else ("told", "not_told")
    sentence = names[low <= 0 <= high]
    said = report.texts(sentence, low=signed(low), high=signed(high))
    return report.texts("corrected", estimate=signed(found["estimate"]), verdict=said) if found["crossed"] else said
