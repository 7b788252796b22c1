"""comments.yaml in the report's folder: the student's own texts, by the name of the place where they are shown."""

from __future__ import annotations

from pathlib import Path

from relay.config.yaml_file import read_mapping
from relay.errors import ConfigError
from relay.files import replace_file
from relay.text import shortlist
from src.reporting.texts import ReportTexts

_PROMPT = "prompt_"


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
