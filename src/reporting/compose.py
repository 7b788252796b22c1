"""Puts the report together and writes its two files.

The user's own texts stand in comments.yaml in its folder, by the name of the place where they are shown.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.config.yaml_file import read_mapping
from relay.errors import ConfigError, RunError
from relay.figures import reworded
from relay.files import replace_file
from relay.text import shortlist
from src.config.schema import Config
from src.reporting.blocks import Block, Comment, Gap, Heading, with_texts, with_words
from src.reporting.closing import diary_section, general_section, references_section, reproducibility_section
from src.reporting.comparing import comparison_section
from src.reporting.data import data_section
from src.reporting.drafts import DRAFTS
from src.reporting.finding import Sweeps
from src.reporting.model import model_section, overfit_section
from src.reporting.rates import lr_section
from src.reporting.rendering import render_html, render_markdown
from src.reporting.report import Report
from src.reporting.search import grid_section, refined_section
from src.reporting.texts import ReportTexts
from src.reporting.training import evaluation_section, training_section

# In their order; section 0 comes before them and is made last.
_SECTIONS: tuple[Callable[[Report], Iterator[Block]], ...] = (
    data_section,
    model_section,
    overfit_section,
    lr_section,
    grid_section,
    training_section,
    comparison_section,
    refined_section,
    evaluation_section,
    diary_section,
    reproducibility_section,
    references_section,
)
_PROMPT = "prompt_"


@dataclass(frozen=True)
class Written:
    """The files of a report, and what is left to do: `gaps`, the places where a run is missing or damaged; `drafts`,
    the comments whose draft the user has neither accepted nor replaced.
    """

    files: Sequence[Path]
    gaps: Sequence[str]
    drafts: Sequence[str]


def write_report(config: Config, config_file: str, language: str, folder: Path) -> Written:
    """Write report.<language>.md and .html, their figures, and once comments.yaml, into `folder`.

    The same runs and comments give the same bytes. Raises RunError if the folder cannot be written, ConfigError if
    comments.yaml is not valid.
    """
    texts = ReportTexts(language)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; give another folder with --out") from None
    comments = folder / "comments.yaml"
    report = Report(config, config_file, texts, folder, read_comments(comments, texts), Sweeps(config), drafts=DRAFTS)
    with reworded(texts.in_figure) if language != "en" else contextlib.nullcontext():
        sections = [block for section in _SECTIONS for block in section(report)]
    # Last, because it lists the runs that the others used.
    missing = _places_of_gaps(sections)
    drafts = [each.name for each in sections if isinstance(each, Comment) and each.is_draft]
    blocks = [_as_read(block, texts) for block in (*general_section(report, missing, drafts), *sections)]
    contents = {"md": render_markdown(blocks, texts, folder), "html": render_html(blocks, texts)}
    files = [folder / f"report.{language}.{suffix}" for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        replace_file(path, content)
    return Written([*files, comments], missing, drafts)


def _as_read(block: Block, texts: ReportTexts) -> Block:
    """The block with the numbers of its language, and without the folders of this machine."""
    return with_texts(with_words(block, texts.numbers), _without_folders)


def _without_folders(text: str) -> str:
    """The text with paths below the current folder relative to it, and with `~` for the user's home."""
    here, shell = Path.cwd(), Path(os.environ.get("PWD", "/"))
    for folder in (here, *([shell] if shell.resolve() == here else [])):
        if folder != folder.parent:
            text = re.sub(rf"(?<![\w./~-]){re.escape(str(folder))}(?:/(?=.)|(?![\w.-]))", "", text)
    home = os.environ.get("HOME", "/")
    return text if home == "/" else re.sub(rf"(?<![\w./~-]){re.escape(home)}(?=/)", "~", text)


def _places_of_gaps(blocks: Sequence[Block]) -> list[str]:
    """The questions and headings below which there is a gap, such as M3."""
    places: dict[str, None] = {}
    heading = ""
    for block in blocks:
        if isinstance(block, Heading):
            heading = block.anchor if block.level == 4 else block.text
        elif isinstance(block, Gap):
            places[heading] = None
    return list(places)


def read_comments(path: Path, texts: ReportTexts) -> dict[str, str]:
    """The texts by name. A missing file is created with an empty entry for each name; an existing one is never changed.

    Raises ConfigError if the file is not YAML, or if an entry has an unknown name or is not a text.
    """
    prompts = {name.removeprefix(_PROMPT): text for name, text in texts.sentences.items() if name.startswith(_PROMPT)}
    if not path.exists():
        entries = [f"# {name}: {prompt}\n{name}: |\n" for name, prompt in prompts.items()]
        replace_file(path, "\n".join([_header(texts), *entries]))
    comments = read_mapping(path)
    for name, text in comments.items():
        if name not in prompts:
            known = shortlist(list(prompts), len(prompts))
            raise ConfigError(f"{path}: {name!r} is the name of no comment; there are: {known}")
        if not isinstance(text, str | None):
            raise ConfigError(f"{path}: {name}: {text!r} is not a text; write it in quotes, or below `{name}: |`")
    return {name: (text or "").strip() for name, text in comments.items()}


def _header(texts: ReportTexts) -> str:
    return "".join(f"# {line}\n" for line in texts("comments_header").splitlines())
