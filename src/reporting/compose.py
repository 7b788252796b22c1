"""All sections of the report in their order, and its two files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from src.config.schema import Config
from src.errors import RunError
from src.files import replace_file
from src.reporting.blocks import Block, Gap
from src.reporting.closing import diary_section, general_section, references_section, reproducibility_section
from src.reporting.comments import read_comments
from src.reporting.data import data_section
from src.reporting.finding import Sweeps
from src.reporting.html import render_html
from src.reporting.markdown import render_markdown
from src.reporting.model import model_section, overfit_section
from src.reporting.report import Report
from src.reporting.search import grid_section, lr_section, refined_section
from src.reporting.texts import Texts
from src.reporting.training import comparison_section, evaluation_section, training_section

# In the order of the report.
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


def write_report(config: Config, config_file: str, language: str, folder: Path) -> tuple[list[Path], int]:
    """Write report.<language>.md and .html, their figures, and once comments.yaml, into `folder`.

    Returns the paths, and the number of gaps: places for which a run is missing or damaged. The same runs give the same
    bytes. Raises RunError if the folder cannot be written, ConfigError if comments.yaml is not valid.
    """
    texts = Texts(language)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; give another folder with --out") from None
    comments = folder / "comments.yaml"
    report = Report(config, config_file, texts, folder, read_comments(comments, texts), Sweeps(config))
    sections = [block for section in _SECTIONS for block in section(report)]
    # Last, because it lists the runs that the others used.
    blocks = [*general_section(report), *sections]
    contents = {"md": render_markdown(blocks, texts, folder), "html": render_html(blocks, texts)}
    files = [folder / f"report.{language}.{suffix}" for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        replace_file(path, content)
    return [*files, comments], sum(isinstance(block, Gap) for block in blocks)
