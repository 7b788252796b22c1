"""The report of a whole experiment, of none, and of a damaged one."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from relay.results.collection import answer_of_sweep
from relay.results.tables.table import read_table
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from relay.terminal import show_value
from src.config.loading import load_config
from src.reporting.compose import read_comments
from src.reporting.report import percent
from src.reporting.texts import LANGUAGES, ReportTexts
from src.requests import compare_request
from tests.fork_server import fork_python
from tests.reporting.conftest import HOSTILE, Project
from tests.results.tables.test_table import write_training
from tests.test_hints import hints_in, paste

QUESTIONS = [*(f"D{number}" for number in range(1, 12)), *(f"M{number}" for number in range(10))]


class Page(HTMLParser):
    """The elements of a page. Fails where an element is not closed, or closed twice."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.attributes, self.tags = "", [], set[str]()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def between(text: str, start: str, end: str) -> str:
    """The Markdown of one question: from its anchor to that of another."""
    return text.split(f'<a id="{start}">', 1)[1].split(f'<a id="{end}">', 1)[0]


@pytest.fixture(scope="module")
def english(project: Project) -> tuple[str, str]:
    """The English report of the whole experiment, as Markdown and HTML."""
    return project.report("en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_whole_experiment_answers_every_question(project: Project, english: tuple[str, str], language: str) -> None:
    markdown, html = english if language == "en" else project.report(language)
    texts = ReportTexts(language)
    numbered = re.findall(r"^#### ([DM]\d+)\\?\. ", markdown, re.M)
    asked = [f"D{n}" for n in range(1, 12)] + [f"M{n}" for n in range(10)]
    assert numbered == asked
    assert [int(number) for number in re.findall(r"^## (\d+)\) ", markdown, re.M)] == list(range(13))
    assert f"**{texts('gap')}**" not in markdown
    page = Page(html)
    for question in QUESTIONS:
        assert ("h4", "id", question) in page.attributes
    sources = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    assert len(sources) == len(re.findall(r"^!\[", markdown, re.M)) >= 9
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for link in re.findall(r"^!\[.*\]\((.*)\)$", markdown, re.M):
        assert (project.report_folder / link).read_bytes().startswith(b"\x89PNG")


def test_the_page_asks_the_network_for_nothing(english: tuple[str, str]) -> None:
    _, html = english
    page = Page(html)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "style", "poster"):
            assert value.startswith(("data:", "#")), (tag, name)
    assert not re.search(r"url\(|@import", html)


def test_numbers_are_those_of_the_runs(project: Project, english: tuple[str, str]) -> None:
    markdown, _ = english
    checks = json.loads(project.checks.read_text())
    assert f"trainable parameters: {checks['batch']['parameters']:,}" in markdown
    assert f"{checks['batch']['initial_loss']:.4f}" in between(markdown, "M2", "section_3")

    grid = project.run_of("grid_").sweep()
    m5 = between(markdown, "M5", "section_6")
    for row in read_table(grid).rows:
        line = next(line for line in m5.splitlines() if str(row["run"]).replace("*", "") in line and "|" in line)
        for name in ("lr", "num_modules", "val/accuracy", "val/loss", "train/loss"):
            assert re.search(rf"\| (\*\*)?{re.escape(show_value(row[name]))}(\*\*)? \|", line)

    answer = answer_of_sweep(grid)
    assert answer.effects
    assert answer.best_set
    assert answer.best_set.winner
    for term in answer.effects.terms:
        assert f"| {term.name} | {percent(term.share or 0.0, 1)} |" in m5
    assert f"val/accuracy {answer.best_set.winner.expected:.4f} (95" in m5
    assert all(name in m5.replace("*", "") for name in answer.best_set.names)
    for figure in ("curves", "parallel", "effects", "heatmap"):
        assert f"(figures/grid/{figure}.png)" in m5

    result = project.run_of("train_").result() or {}
    m6 = between(markdown, "M6", "section_7")
    assert f"{show_value(result['best']['loss'])} | " in next(line for line in m6.splitlines() if "| best |" in line)
    tested = project.run_of("evaluate_").result() or {}
    m9 = between(markdown, "M9", "section_10")
    low, high = tested["intervals"]["accuracy"]
    interval = f"{show_value(low)} – {show_value(high)}"
    assert (
        f"| accuracy | {show_value(tested['accuracy'])} | {interval} | {show_value(result['best']['accuracy'])} |" in m9
    )
    assert tested["against_val"]["crossed"] is not None
    assert f"choice of the epoch: {tested['against_val']['gap']:+.4f} (95" in m9.replace("\u00a0", " ")
    assert f"a calibrated network would have {show_value(tested['ece']['floor'])} on average" in m9
    m7 = between(markdown, "M7", "section_8")
    assert "for these two networks on new data" in m7

    attempts = [run.attempts() for sweep in sweeps(project.folder / "runs") for run in sweep.runs()]
    used = sum(each.seconds for own in attempts for each in own) / 3600
    assert f"{used:.3g} slice-hours used" in markdown


def test_every_section_names_its_run_and_every_command_is_listed(project: Project, english: tuple[str, str]) -> None:
    markdown, _ = english
    for tag in ("overfit_small_", "train_", "evaluate_", "lr_finder_"):
        assert f"Source: {project.run_of(tag).label}" in markdown.replace("\\", "")
    commands = between(markdown, "commands", "section_1")
    modules = re.findall(r"-m (src\.\w+)", commands)
    assert modules[0] == "src.checks"
    assert {"src.lr_finder", "src.grid_search", "src.train", "src.compare_runs", "src.evaluate"} < set(modules)


def test_the_command_of_a_user_gives_the_same_bytes_again(project: Project) -> None:
    words = ["src.report", "--config", str(project.file), "--out", str(project.folder / "again")]
    written = []
    for _ in range(2):
        done = fork_python(*words)
        assert done.returncode == 0, done.stderr
        files = sorted(path for path in (project.folder / "again").rglob("*") if path.is_file())
        written.append({path: path.read_bytes() for path in files})
        *lines, drafts = done.stdout.splitlines()
        assert {f"wrote {path}" for path in files if path.suffix != ".png"} == set(lines)
        assert drafts.startswith("drafts to accept or to replace in comments.yaml: D1, D4,")
    assert written[0] == written[1]


def test_an_empty_project_is_a_report_of_gaps_with_the_commands_that_fill_them(empty: Project) -> None:
    markdown, html = empty.report()
    page = Page(html)
    for question in QUESTIONS:
        assert ("h4", "id", question) in page.attributes
    offered = dict.fromkeys(hint.removeprefix("> ") for hint in hints_in(markdown.replace("> ", "")))
    gaps = [hint for hint in offered if "src.report" not in hint]
    modules = {re.findall(r"-m (\S+)", hint)[0] for hint in gaps}
    assert modules == {f"src.{name}" for name in ("checks", "train", "lr_finder", "grid_search", "compare_runs")}
    done = paste(next(hint for hint in gaps if "lr_finder" in hint))
    assert done.returncode == 0, done.stderr
    markdown, _ = empty.report()
    assert "no finished LR sweep" not in markdown
    assert "suggested rate" in markdown


def test_variants_are_suggested_to_a_configuration_without_any(empty: Project) -> None:
    empty.file.write_text(re.sub(r"^compare:(\n .*)+\n", "", empty.file.read_text(), flags=re.M))
    markdown, _ = empty.report()
    hint = next(hint for hint in hints_in(markdown.replace("> ", "")) if "compare_runs" in hint)
    suggested = re.findall(r"--set '(.*)'", hint)
    cells = compare_request(load_config(empty.file, suggested)).cells
    assert [cell.name for cell in cells] == ["base", "lower_lr", "higher_weight_decay", "other_num_modules"]


def test_runs_that_share_a_slice_use_it_once(copied: Project) -> None:
    run = copied.run_of("train_")
    attempt = run.attempts()[-1]
    begun = attempt.start
    for hours, number in ((1, 1), (2, 2)):
        run.record_attempt(
            number, start=begun, end=begun + 3600 * hours, cause="DONE", job="7", cluster="c", job_start=begun
        )
    text, _ = copied.report()
    (costs,) = (line for line in text.splitlines() if re.match(r"\| train\S* \| 1 \| 2 \|", line))
    assert "| 2 | 2 |" in costs, costs


@pytest.mark.parametrize(
    ("language", "last", "better"),
    [
        ("en", "is its last one (3 of 3)", "is better on the same"),
        ("fr", "est la dernière (3 sur 3)", "est meilleur sur"),
    ],
)
def test_what_the_search_leaves_open_is_said(copied: Project, language: str, last: str, better: str) -> None:
    run = copied.run_of("train_")
    result = run.result() or {}
    assert result["epochs"] == 3
    exported = copied.folder / "artifacts" / "best.json"
    source = json.loads(exported.read_text())

    def write(epoch: float, accuracy: float) -> str:
        write_training(run, {**result, "best": {**result["best"], "epoch": epoch}})
        best = {"accuracy": accuracy, "loss": 1.0}
        exported.write_text(json.dumps({**source, "run": "runs/another_1/run", "result": {"best": best}}))
        return copied.report(language)[0].replace("\\", "")

    text = write(3.0, -1.0)
    assert f"{run.label} {last}" in between(text, "M6", "M7")
    assert f"{run.label} {better}" in text
    text = write(2.0, 1.0)
    assert last not in text
    assert better not in text


def resume_elsewhere(run: RunDir, **changes: str) -> None:
    result = run.result() or {}
    first = result["environments"][0]
    run.write_result({**result, "environments": [first, {**first, **changes}]})


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "Not all of these runs were computed in one"), ("fr", "pas tous été calculés dans un")],
)
def test_runs_that_were_resumed_in_another_environment_are_named(copied: Project, language: str, said: str) -> None:
    assert said not in copied.report(language)[0]
    resume_elsewhere(copied.run_of("train_"), cpu_capability="OLDER")
    resume_elsewhere(copied.run_of("lr_"), MKL_CBWR="AVX")
    resume_elsewhere(copied.run_of("compare"), torch="1.9.0")
    text, _ = copied.report(language)
    for start, end, change in (("M4", "M5", "none -> AVX"), ("M6", "M7", "-> OLDER"), ("M7", "M8", "-> 1.9.0")):
        assert said in between(text, start, end)
        assert change in between(text, start, end).replace("\\", "").replace("&gt;", ">")
    assert said not in between(text, "M5", "M6")


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    """A copy of the experiment, to be damaged. Without its grids, whose figures take time."""
    folder = tmp_path / "copy"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("report", "grid_*", "narrow_*"))
    copy = Project(folder)
    copy.file.write_text(copy.file.read_text().replace(str(project.folder), str(folder)))
    return copy


def damage_result(project: Project, tag: str) -> None:
    project.run_of(tag).result_file.write_text('{"status": "done", "steps": "many"}')


@pytest.mark.parametrize("which", ["the data and the searches", "the training", "the evaluation"])
def test_what_is_damaged_is_a_gap_with_its_message(project: Project, copied: Project, which: str) -> None:
    expected = {}
    if which == "the data and the searches":
        copied.checks.write_text('{"dataset": 3}')
        damage_result(copied, "overfit_small")
        grid = project.run_of("grid_").sweep()
        shutil.copytree(grid.path, copied.folder / "runs" / grid.name)
        copied.run_of("grid_").sweep().cells_file.write_text('{"index": 0}\n')
        expected = {"D1": "dataset: must be", "M3": "steps: must be", "M5": "cells.jsonl: line 1: name: Field required"}
    elif which == "the training":
        damage_result(copied, "train_")
        expected = {"M6": "result.json: steps: must be", "M9": "result.json: steps: must be"}
    else:
        copied.checks.write_text('{"data')
        damage_result(copied, "evaluate_")
        expected = {"M2": "checks.json: is not JSON", "M9": "result.json: steps: must be"}
    markdown, html = copied.report()
    Page(html)
    for place, message in expected.items():
        following = [*QUESTIONS, "section_10"][QUESTIONS.index(place) + 1]
        answer = between(markdown, place, following).replace("\\", "")
        assert "**Missing.** This part stops here: " in answer
        assert message in answer


def test_hostile_texts_are_only_shown(copied: Project) -> None:
    checks = json.loads(copied.checks.read_text())
    for row in checks["class_table"]:
        row["name"] = HOSTILE
    copied.checks.write_text(json.dumps(checks))
    copied.report_folder.mkdir(parents=True)
    (copied.report_folder / "comments.yaml").write_text(f"D4: '{HOSTILE}'\n")
    markdown, html = copied.report()
    page = Page(html)
    assert "script" not in page.tags
    # As a class; as what was expected of a variant, there and in the configuration, quoted as YAML; as a comment.
    times = len(checks["class_table"]) + 3
    assert page.text.count(HOSTILE) == times
    rendered = MarkdownIt("commonmark").enable("table").render(markdown)
    assert "<script" not in rendered
    shown = Page(f"<div>{rendered}</div>").text
    assert shown.count(HOSTILE) == times


def test_comments_are_shown_and_never_overwritten(empty: Project) -> None:
    empty.report_folder.mkdir(parents=True)
    read_comments(empty.report_folder / "comments.yaml", ReportTexts("en"))
    file = empty.report_folder / "comments.yaml"
    created = file.read_text()
    assert "\nM9: |\n" in created
    own = created.replace("\nM9: |\n", "\nM9: |\n  The gap is small.\n\n  - and expected\n")
    file.write_text(own)
    markdown, html = empty.report("fr")
    assert "> The gap is small.\n>\n> \\- and expected" in markdown
    assert "The gap is small.\n\n- and expected" in html
    assert file.read_text() == own


@pytest.mark.parametrize(
    ("content", "message"),
    [("D44: a\n", "'D44' is the name of no comment; there are: project, D1"), ("D4: [1]\n", "D4: [1] is not a text")],
)
def test_a_comment_that_would_be_lost_is_refused(empty: Project, content: str, message: str) -> None:
    empty.report_folder.mkdir(parents=True)
    (empty.report_folder / "comments.yaml").write_text(content)
    done = fork_python("src.report", "--config", str(empty.file))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_language_and_a_folder_that_cannot_be(empty: Project) -> None:
    for more, message in (
        (["--lang", "de"], "give one of en, fr"),
        (["--out", str(empty.file)], "cannot be created"),
    ):
        done = fork_python("src.report", "--config", str(empty.file), *more)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
