"""Blocks as one HTML file that needs no other: its figures and its style are inside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay.text import printable
from src.reporting.blocks import Block, Figure, Heading, is_numeric
from src.reporting.texts import ReportTexts


def render_html(blocks: Sequence[Block], texts: ReportTexts) -> str:
    """The HTML text. Every text of a block is escaped. Raises OSError if a figure cannot be read."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [block for block in blocks if isinstance(block, Heading) and block.level == 2]
    text = environment.get_template("report.html.jinja").render(
        blocks=[(type(block).__name__, block) for block in blocks],
        title=next(block.text for block in blocks if isinstance(block, Heading)),
        sections=sections,
        texts=texts,
        is_numeric=is_numeric,
        embedded=_embedded,
    )
    return printable(text)


def _embedded(figure: Figure) -> str:
    return f"data:image/png;base64,{base64.b64encode(figure.file.read_bytes()).decode()}"
