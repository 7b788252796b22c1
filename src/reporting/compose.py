"""Puts the report together and writes its two files.

The user's own texts stand in comments.yaml in its folder, by the name of the place where they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from relay.config.yaml_file import read_mapping
from relay.errors import ConfigError, RunError
from relay.files import replace_file
from relay.text import shortlist
from src.config.schema import Config
from src.reporting.blocks import Block, Gap, Heading
from src.reporting.closing import diary_section, general_section, references_section, reproducibility_section
from src.reporting.comparing import comparison_section
from src.reporting.data import data_section
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


def write_report(config: Config, config_file: str, language: str, folder: Path) -> tuple[list[Path], list[str]]:
    """Write report.<language>.md and .html, their figures, and once comments.yaml, into `folder`.

    Returns the paths, and the places with a gap, where a run is missing or damaged. The same runs give the same
    bytes. Raises RunError if the folder cannot be written, ConfigError if comments.yaml is not valid.
    """
    texts = ReportTexts(language)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; give another folder with --out") from None
    comments = folder / "comments.yaml"
    report = Report(config, config_file, texts, folder, read_comments(comments, texts), Sweeps(config))
    sections = [block for section in _SECTIONS for block in section(report)]
    # Last, because it lists the runs that the others used.
    missing = _places_of_gaps(sections)
    blocks = [*general_section(report, missing), *sections]
    contents = {"md": render_markdown(blocks, texts, folder), "html": render_html(blocks, texts)}
    files = [folder / f"report.{language}.{suffix}" for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        replace_file(path, content)
    return [*files, comments], missing


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
