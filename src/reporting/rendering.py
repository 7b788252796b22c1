"""Blocks as a Markdown file in the dialect of GitHub, whose figures lie beside it, and as one HTML file with them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay.text import printable
from src.reporting.blocks import (
    Block,
    CodeBlock,
    Comment,
    Figure,
    Gap,
    Heading,
    Items,
    Paragraph,
    SourceNote,
    TableBlock,
    Verdicts,
    is_numeric,
)
from src.reporting.texts import ReportTexts

# Anything that GitHub's Markdown interprets inside a line. An underscore within a word is not among them.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$#]|(?<![^\W_])_|_(?![^\W_])")
# Not the spaces that may not be broken, which French needs.
_SPACES = re.compile(r"[ \t\r\n\f\v]+")
# What would make a paragraph a list, a heading or a rule.
_AT_START = re.compile(r"^([-+=]|\d+(?=[.)]( |$)))")


def render_markdown(blocks: Sequence[Block], texts: ReportTexts, folder: Path) -> str:
    """The Markdown text. Links to figures are relative to `folder`."""
    return printable("\n\n".join(_render(block, texts, folder) for block in blocks) + "\n")


def _render(block: Block, texts: ReportTexts, folder: Path) -> str:
    match block:
        case Heading(level, text, anchor):
            return f'<a id="{anchor}"></a>\n\n{"#" * level} {_escape(text)}'
        case Paragraph(text):
            return _line(text)
        case Items(items):
            return "\n".join(f"- {_line(item)}" for item in items)
        case Verdicts(items):
            return "\n".join(f"- {'✓' if holds else '✗'} {_line(text)}" for holds, text in items)
        case TableBlock():
            return _table(block)
        case Figure(file, caption):
            return f"![{_escape(caption)}]({file.relative_to(folder)})\n\n*{_escape(caption)}*"
        case CodeBlock(text, language):
            return _fenced(text, language)
        case SourceNote(text):
            return f"<sub>{_escape(texts('origin', what=text))}</sub>"
        case Gap(text, commands):
            lines = [f"> **{_escape(texts('gap'))}** {_escape(text)}"]
            if commands:
                fenced = _fenced("\n".join(commands), "bash").splitlines()
                lines += [">", *(f"> {line}" for line in fenced)]
            return "\n".join(lines)
        case Comment():
            return _comment(block, texts)


def _comment(comment: Comment, texts: ReportTexts) -> str:
    title = f"> **{_escape(texts('your_comment'))}**"
    if comment.text:
        return "\n".join([title, ">", *(f"> {_line(line)}".rstrip() for line in comment.text.splitlines())])
    sentences = [f"> - {_line(sentence)}" for sentence in comment.draft]
    if comment.is_draft:
        note = _escape(texts("draft_note", name=comment.name))
        title = f"> **{_escape(texts('draft'))}** {note}"
    if sentences:
        return "\n".join([title, ">", *sentences])
    return f"{title} {_escape(comment.prompt)} {_escape(texts('comment_missing', name=comment.name))}"


def _escape(text: str) -> str:
    """The text on one line, without any meaning in Markdown or HTML."""
    line = _SPACES.sub(" ", text).replace("&", "&amp;")
    return _SPECIAL.sub(lambda found: f"\\{found.group()}", line)


def _line(text: str) -> str:
    """`_escape` of a text that begins a line."""
    escaped = _escape(text)
    return _AT_START.sub(r"\1\\" if escaped[:1].isdigit() else r"\\\1", escaped)


def _table(table: TableBlock) -> str:
    columns = range(len(table.columns))
    aligned = ["---:" if is_numeric(table, column) else "---" for column in columns]
    rows = [[_escape(cell) for cell in row] for row in table.rows]
    rows = [[f"**{cell}**" if cell else "" for cell in row] if n in table.marked else row for n, row in enumerate(rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([_escape(name) for name in table.columns], aligned, *rows))


def _fenced(text: str, language: str) -> str:
    # Longer than any run of backticks in the text, which would end the block.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


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
