"""Messages for invalid configurations: the key path, the value, what is allowed, and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the valid names closest to `name`; "" if none is close."""
    close = difflib.get_close_matches(name, list(valid), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(item) for item in close)}?" if close else ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section model in a field's annotation, including optional sections; None if the field is not a section."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def describe(
    error: ValidationError,
    schema: type[BaseModel],
    source: str,
    constant_keys: Mapping[str, str] | None = None,
    unions: Mapping[str, str] | None = None,
) -> str:
    """All problems of one validation, one per line, below a line that names the file.

    `constant_keys`: why a key allows only null or one value, by key path, in place of pydantic's wording. `unions`:
    what a key of several types allows, in place of one line for each type.
    """
    lines: list[str] = []
    for item in _without_members(error.errors(include_url=False, include_context=True), unions or {}):
        lines.extend(_lines(item, schema, constant_keys or {}))
    return listed(lines, source)


def _without_members(items: Iterable[Any], unions: Mapping[str, str]) -> Iterator[Any]:
    """The errors, of each key of several types one: the first inside of its value, or that none of the types fits."""
    of_key: dict[str, list[Any]] = {}
    for item in items:
        loc = item["loc"]
        key = next((key for key in unions if loc[: key.count(".") + 1] == tuple(key.split("."))), None)
        if key is None:
            yield item
        else:
            of_key.setdefault(key, []).append(item)
    for key, found in of_key.items():
        depth = key.count(".") + 1
        # Behind the key is the name of the type, then the place in the value.
        inside = [item for item in found if len(item["loc"]) > depth + 1]
        if inside:
            yield {**inside[0], "loc": (*inside[0]["loc"][:depth], *inside[0]["loc"][depth + 1 :])}
        else:
            yield {**found[0], "loc": found[0]["loc"][:depth], "type": "union", "msg": unions[key]}


def listed(problems: Iterable[str], source: str) -> str:
    """Each distinct problem on its own line, below a line that names the file."""
    lines = list(dict.fromkeys(problems))
    noun = "problem" if len(lines) == 1 else "problems"
    return "\n".join([f"{source}: {len(lines)} {noun}", *(f"  {line}" for line in lines)])


def _lines(item: Any, schema: type[BaseModel], constant_keys: Mapping[str, str]) -> list[str]:
    names = [str(part) for part in item["loc"]]
    path = _path(item["loc"], schema)
    if not path:
        # A rule about several keys: it names them itself, and the input is the whole file.
        return [_allowed(item)]
    if path in constant_keys:
        return [f"{path}: {_show(item['input'])} is not possible: {constant_keys[path]}"]
    if item["type"] == "extra_forbidden":
        valid = _keys_at(item["loc"][:-1], schema)
        return [f"{path}: unknown key{nearest(names[-1], valid)}; valid here: {', '.join(valid)}"]
    if item["type"] == "missing":
        return [f"{path}: missing; {_allowed(item)}"]
    return [f"{path}: {_show(item['input'])} is not allowed; {_allowed(item)}"]


def _path(loc: tuple[int | str, ...], schema: type[BaseModel]) -> str:
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        # pydantic also puts the names of union members, such as "constrained-int", into the location.
        elif part.isidentifier() or "." in part:
            text += f".{part}" if text else part
    return text


def _keys_at(loc: tuple[int | str, ...], schema: type[BaseModel]) -> list[str]:
    model: Any = schema
    for part in loc:
        field = getattr(model, "model_fields", {}).get(str(part))
        if field is None:
            continue
        model = section_of(field.annotation) or model
    return list(model.model_fields)


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_show(item) for item in value)}]"
    # true, false and null as YAML writes them.
    text = (
        repr(value) if not isinstance(value, bool) and value is not None else str(value).lower().replace("none", "null")
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


_WORDS = {
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give a string",
    "tuple_type": "give a list",
    "none_required": "leave it null",
    "model_type": "give a section with keys",
    "dict_type": "give a section with keys",
}


def _allowed(item: Any) -> str:
    context = item.get("ctx", {})
    kind = item["type"]
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in ("too_short", "too_long"):
        low, high = context.get("min_length"), context.get("max_length")
        return (
            f"give a list of {low if low is not None else high} values"
            if kind == "too_short"
            else f"give at most {high} values"
        )
    if kind == "missing":
        return "the list is too short"
    if kind == "literal_error":
        return f"allowed: {context['expected']}"
    message = str(item["msg"])
    return message.replace("Input should be", "must be").replace("Value error, ", "")
