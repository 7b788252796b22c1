"""Writes docs/reference.md, every key of configurations and profiles, from their schemas: `make reference`.

The meaning of a key is the text below its field in the schema, or the description of its `Field`.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from hpc.submission.profile import Profile
from relay.config.sections import Section
from relay.projects.config import ProgramConfig
from src.config.schema import Config

DOCUMENT = Path(__file__).with_name("reference.md")
_HEAD = """\
# Reference

Every key, with what is allowed, its default and its meaning. `make reference` writes this page from the schemas.

*required*: the key must be given. `NAME` stands for a name that you choose.
"""
_SCHEMAS = (
    ("Profile", Profile, "`configs/clusters/NAME.yaml`: [where tasks run](profiles.md)."),
    ("Program", ProgramConfig, "`relay.yaml` of [your own function](programs.md) or [script](scripts.md)."),
    ("Image experiment", Config, "`configs/config.yaml`, or `relay.yaml` of an [image experiment](experiment.md)."),
)
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
_TYPES = {bool: "true or false", str: "text", Any: "any value"}


def reference() -> str:
    """The text of docs/reference.md."""
    parts = [_HEAD]
    for title, schema, introduction in _SCHEMAS:
        parts.append(f"## {title}\n\n{introduction}\n")
        tables: dict[str, list[str]] = {"": []}
        for row in _rows(schema):
            section = row[0].split(".")[0]
            tables.setdefault(section if "." in row[0] else "", []).append(_line(row))
        for section, lines in ((section, lines) for section, lines in tables.items() if lines):
            heading = f"### {title}: {section}\n\n" if section else ""
            parts.append(
                heading + "\n".join([_line(("key", "allowed", "default", "meaning")), "|---|---|---|---|", *lines])
            )
            parts.append("")
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    first, *rest = (cell.replace("|", "\\|") for cell in cells)
    return "| " + " | ".join([first if first == "key" else f"`{first}`", *rest]) + " |"


def _rows(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """The key, what is allowed, the default and the meaning of each field, and those of the sections below it."""
    meanings = _meanings(schema)
    for name, field in schema.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        section = next(_sections(field.annotation), None)
        if section is not field.annotation or not section:
            meaning = field.description or meanings.get(name)
            if not meaning:
                raise ValueError(f"{schema.__name__}.{name}: has no meaning; write a text below it in the schema")
            yield key, _allowed(field.annotation, field.metadata), _default(field), _sentence(meaning)
        if section:
            inside = "NAME." if get_origin(field.annotation) in (dict, Mapping) else ""
            yield from _rows(section, f"{key}.{inside}")
    if schema.model_config.get("extra") == "allow":
        yield f"{prefix}NAME", "list of values", "", "An axis of the grid. The first axis varies slowest."


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        yield annotation
    for each in get_args(annotation):
        yield from _sections(each)


def _meanings(schema: type[Section]) -> dict[str, str]:
    """Field -> the text below it, of this class and those that it inherits from."""
    found: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if not (issubclass(owner, Section)):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a field takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(inner[0], inner[1:])
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(_allowed(each, metadata) for each in inner))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value) if isinstance(value, bool) else value}`" for value in inner)
    if annotation is NoneType:
        return "null"
    if origin is tuple:
        count = "" if inner[-1] is ... else f"{len(inner)} × "
        return f"list of {count}{_allowed(inner[0])}"
    if origin in (dict, Mapping):
        return "names with values" if not any(_sections(annotation)) else "names with sections"
    if annotation in (int, float):
        return " ".join(["whole number" if annotation is int else "number", *_bounds(metadata)])
    return "section" if any(_sections(annotation)) else _TYPES[annotation]


def _bounds(metadata: Sequence[Any]) -> list[str]:
    flat = [each for item in metadata for each in (item.metadata if isinstance(item, FieldInfo) else [item])]
    words = [
        text.format(f"{getattr(each, name):,}")
        for each in flat
        for name, text in _BOUNDS.items()
        if getattr(each, name, None) is not None
    ]
    return [" and ".join(words)] if words else []


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    return "*see below*" if isinstance(value, Section) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    DOCUMENT.write_text(reference(), encoding="utf-8")
