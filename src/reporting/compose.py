"""Puts the report together and writes its two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relay.errors import RunError
from relay.files import replace_file
from src.config.schema import Config
from src.reporting.blocks import Block, Gap, Heading
from src.reporting.comments import read_comments
from src.reporting.finding import Sweeps
from src.reporting.html import render_html
from src.reporting.markdown import render_markdown
from src.reporting.report import Report
from src.reporting.sections import SECTIONS, general_section
from src.reporting.texts import ReportTexts


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
    sections = [block for section in SECTIONS for block in section(report)]
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
