"""Strict YAML: `3e-4` is a number, a duplicate key is an error, and every error gives its line and column."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from relay.errors import ConfigError

# The allowed tags. Values of any other (!!set, !!binary, ...) could be written neither as an override nor as JSON.
_TAG = "tag:yaml.org,2002:"
_TAGS: dict[type[yaml.Node], frozenset[str]] = {
    yaml.ScalarNode: frozenset({"str", "int", "float", "bool", "null"}),
    yaml.SequenceNode: frozenset({"seq"}),
    yaml.MappingNode: frozenset({"map"}),
}
_MAX_DEPTH = 50
# Nested aliases turn a few lines into gigabytes (the "billion laughs" attack).
_MAX_VALUES = 5_000_000
# torch.manual_seed accepts exactly this range, and parquet no larger integers.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def _check_nodes(node: yaml.Node, depth: int, sizes: dict[yaml.Node, int], open_: set[yaml.Node]) -> int:
    """The number of values in the document below `node`. Raises ConfigError for anything that is not allowed."""
    if node in open_:
        raise _refusal(node, "this anchor contains an alias of itself; write the values out")
    if node in sizes:
        return sizes[node]
    if depth > _MAX_DEPTH:
        raise _refusal(node, f"nested deeper than {_MAX_DEPTH} levels")
    kind = node.tag.removeprefix(_TAG)
    if kind not in _TAGS[type(node)]:
        name = f"!!{kind}" if node.tag.startswith(_TAG) else node.tag
        raise _refusal(node, f"the tag {name} is not allowed here; remove it and write a plain value")
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(kind, node)
        return 1
    open_.add(node)
    children = _children(node) if isinstance(node, yaml.MappingNode) else node.value
    size = 1 + sum(_check_nodes(child, depth + 1, sizes, open_) for child in children)
    if size > _MAX_VALUES:
        raise _refusal(node, f"its aliases expand to more than {_MAX_VALUES:,} values")
    open_.remove(node)
    sizes[node] = size
    return size


def _children(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    for key, value in node.value:
        if key.tag != f"{_TAG}merge":
            if key.tag != f"{_TAG}str":
                raise _refusal(key, "a key must be a string; put it in quotes")
            yield key
        yield value


def _check_scalar(kind: str, node: yaml.ScalarNode) -> None:
    text = node.value
    if kind == "str" and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
        raise _refusal(node, "contains an invalid character (NUL, or half of a surrogate pair)")
    if kind == "bool" and text.lower() not in yaml.constructor.SafeConstructor.bool_values:
        raise _refusal(node, f"{text!r:.80} is neither true nor false")
    if kind == "float" and not _FLOAT.match(text):
        raise _refusal(node, f"{text!r:.80} is not a number")
    if kind == "int" and not (_INT.match(text) and len(text) < 100 and _SMALLEST <= int(text) <= _LARGEST):
        raise _refusal(node, f"{text!r:.80} is not a whole number from {_SMALLEST} to {_LARGEST} (64 bits)")


def _refusal(node: yaml.Node, problem: str) -> ConfigError:
    return ConfigError(f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}: {problem}")


class _UniqueKeys(yaml.constructor.SafeConstructor):
    def construct_document(self, node: yaml.Node) -> Any:
        """Refuse anything but strings, numbers, booleans, null, lists and mappings."""
        _check_nodes(node, 0, {}, set())
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a duplicate key in a mapping: PyYAML would silently keep the last one."""
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in lines:
                raise ConfigError(
                    f"duplicate key {key_node.value!r} on lines {lines[key_node.value]} and {line}; keep one of them"
                )
            lines[key_node.value] = line
        return super().construct_mapping(node, deep=deep)


class StrictLoader(_UniqueKeys, yaml.SafeLoader):
    """SafeLoader that reads `3e-4` as a number, as YAML 1.2 does, and refuses duplicate keys."""


# The core schema of YAML 1.2 (section 10.3.2): an exponent needs neither a dot nor a sign.
_FLOAT = re.compile(
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?[0-9]+$")
StrictLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
# YAML 1.2 has no octal with a leading zero: 010 is ten.
StrictLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value), 10))


class _FastLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """StrictLoader on top of libyaml if PyYAML was built with it: 7.6 ms for a config file became 1 ms."""

    yaml_implicit_resolvers = StrictLoader.yaml_implicit_resolvers
    yaml_constructors = StrictLoader.yaml_constructors


# libyaml's binding recurses in C: text nested about 100,000 levels deep would crash the process.
_FAST_CHARACTERS = 16 * 1024


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document.

    Raises ConfigError, which starts with `source`, for bad syntax, for duplicate keys, and for anything but strings,
    64-bit numbers, booleans, null, lists and mappings.
    """
    try:
        if len(text) <= _FAST_CHARACTERS:
            # On any error, StrictLoader parses again: its messages say more.
            with contextlib.suppress(ConfigError, yaml.YAMLError, ValueError, RecursionError):
                return yaml.load(text, Loader=_FastLoader)
        return yaml.load(text, Loader=StrictLoader)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{source}:{where} not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping with string keys. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give an existing one with --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    content = parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the top level is a {type(content).__name__}; it must be a mapping of sections")
    return content


class _StrictDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes exactly those strings that StrictLoader would read as another type."""

    yaml_implicit_resolvers = StrictLoader.yaml_implicit_resolvers


def dump_yaml(content: Any, *, on_one_line: bool = False) -> str:
    """YAML text that `parse_yaml` reads back to the same values, keys in their given order."""
    flow, width = (True, 10**9) if on_one_line else (None, 100)
    text: str = yaml.dump(
        content, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=width
    )
    # The end that a single value has.
    return text.removesuffix("...\n").rstrip("\n") if on_one_line else text


def json_text(content: Any) -> str:
    """Indented JSON with a final newline. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
