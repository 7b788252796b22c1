"""The parameters of a program: YAML values converted to what its function declares.

The function takes what Relay gives it (the run, or of a network the classes and the shape of an input), and either one
dataclass (or pydantic model, or other class) with the parameters, or the parameters as keyword arguments.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import ConfigError
from relay.program.environment import is_installed

_NONE = inspect.Parameter.empty


@dataclass(frozen=True)
class Field:
    """One parameter: its name, its annotation, and its default (`inspect.Parameter.empty` without one)."""

    name: str
    annotation: Any
    default: Any

    def __str__(self) -> str:
        declared = "" if self.annotation is _NONE else f": {_name_of(self.annotation)}"
        return f"{self.name}{declared}" + ("" if self.default is _NONE else f" = {self.default!r}")


@dataclass(frozen=True)
class Caller:
    """What calls a function: the names of what it gives first, in words and in a signature; the key that names the
    function, and the section with its parameters.
    """

    gives: str
    names: tuple[str, ...]
    key: str
    section: str


PROGRAM = Caller("a run", ("run",), "program.function", "params")
NETWORK = Caller("the number of classes and the shape of an input", ("classes", "shape"), "model.type", "model.options")


class Parameters:
    """What a function, or a class, declares. `owner` is what messages call it."""

    def __init__(self, function: Callable[..., Any], caller: Caller = PROGRAM) -> None:
        """Raises ConfigError if the function does not take first what its caller gives, or if that is not clear."""
        module, name = function.__module__, getattr(function, "__qualname__", repr(function))
        self.owner, self._caller = f"{module}.{name}", caller
        try:
            given = list(inspect.signature(function).parameters.values())
            hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
        except (TypeError, ValueError, NameError) as error:
            raise ConfigError(f"{caller.key}: {self.owner}: its parameters cannot be read: {error}") from None
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        first = [each for each in given[: len(caller.names)] if each.kind in by_place]
        if len(first) < len(caller.names):
            raise ConfigError(
                f"{caller.key}: {self.owner} must take {caller.gives} first: def {name}({', '.join(caller.names)}, ...)"
            )
        rest = given[len(caller.names) :]
        self._made: Callable[..., Any] | None = None
        if len(rest) == 1 and isinstance(made := hints.get(rest[0].name), type) and not _is_plain(made):
            self._made, self.owner = made, f"{module}.{made.__qualname__}"
            if not dataclasses.is_dataclass(made):
                rest = [each for each in inspect.signature(made).parameters.values() if each.name != "self"]
                hints = typing.get_type_hints(made) if not hasattr(made, "model_fields") else made.__annotations__
        self.takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in rest)
        if self._made is not None and dataclasses.is_dataclass(self._made):
            self.fields = _dataclass_fields(self._made)
        else:
            named = (each for each in rest if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL))
            self.fields = {each.name: Field(each.name, hints.get(each.name, _NONE), each.default) for each in named}

    def resolve(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values by name, defaults included, as plain values; and the problems of those that do not fit."""
        values, problems = self._converted(given)
        if not problems:
            try:
                made = self._build(values)
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                return {}, [f"{self.owner} refused its values: {reason[:500]}"]
            if self._made:
                values = {name: getattr(made, name, values.get(name)) for name in self.fields}
        return {name: _plain(value) for name, value in values.items()}, problems

    def call(self, function: Callable[..., Any], first: Sequence[Any], given: Mapping[str, Any]) -> Any:
        """Call the function with what its caller gives first, and its parameters. Raises ConfigError if they do not
        fit.
        """
        values, problems = self._converted(given)
        if problems:
            raise ConfigError("; ".join(problems))
        return function(*first, self._build(values)) if self._made else function(*first, **self._build(values))

    def _build(self, values: Mapping[str, Any]) -> Any:
        """The object that the function takes; without one, its keyword arguments."""
        return self._made(**values) if self._made else dict(values)

    def _converted(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        problems, values = list[str](), dict[str, Any]()
        for name, value in given.items():
            field = self.fields.get(name)
            if field is None and self.takes_any:
                values[name] = value
            elif field is None:
                close = difflib.get_close_matches(name, self.fields, n=1)
                meant = f"; did you mean {close[0]}?" if close else ";"
                problems.append(
                    f"{self._caller.section}.{name}: unknown{meant} {self.owner} has {', '.join(self.fields) or 'none'}"
                )
            else:
                try:
                    values[name] = convert(value, field.annotation)
                except ValueError as error:
                    problems.append(f"{self._caller.section}.{name}: {error}; {self.owner}.{field}")
        for name, field in self.fields.items():
            if name not in given and field.default is _NONE:
                problems.append(f"{self._caller.section}.{name}: missing; {self.owner}.{field} has no default")
        if not self._made:
            defaults = {name: field.default for name, field in self.fields.items() if field.default is not _NONE}
            values = {**defaults, **values}
        return values, problems


def _dataclass_fields(made: Any) -> dict[str, Field]:
    hints = typing.get_type_hints(made)
    fields = {}
    for each in dataclasses.fields(made):
        if each.init:
            factory: Any = each.default_factory
            default = each.default if factory is dataclasses.MISSING else factory()
            fields[each.name] = Field(
                each.name, hints.get(each.name, _NONE), _NONE if default is dataclasses.MISSING else default
            )
    return fields


def convert(value: Any, annotation: Any) -> Any:
    """A YAML value as the annotation says. Raises ValueError, with the reason, if it does not fit.

    What is neither a plain type, Path, Literal, Enum, list, tuple, dict, union nor dataclass gets the value as it is.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (_NONE, Any) or isinstance(annotation, str | typing.TypeVar):
        return value
    if origin is typing.Annotated:
        return convert(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(value, arguments)
    if origin is typing.Literal:
        if any(value == each and type(value) is type(each) for each in arguments):
            return value
        raise ValueError(f"{value!r} is none of {', '.join(map(repr, arguments))}")
    if annotation in (None, type(None)):
        if value is not None:
            raise ValueError(f"{value!r} is not null")
        return None
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation in (bool, int, float, str):
        if type(value) is not annotation:
            raise ValueError(f"{value!r} is not {_with_article(annotation.__name__)}")
        return value
    if (origin or annotation) in (list, tuple, set, dict) or origin in _ABSTRACT:
        return _collection(value, _ABSTRACT.get(origin, origin or annotation), arguments)
    if isinstance(annotation, type):
        return _of_class(value, annotation)
    return value


_ABSTRACT: dict[Any, Any] = {Sequence: list, Iterable: list, Mapping: dict}


def _first_that_fits(value: Any, annotations: tuple[Any, ...]) -> Any:
    # An exact type first: 1 of `float | int` is an int.
    exact = [each for each in annotations if isinstance(each, type) and type(value) is each]
    for annotation in (*exact, *annotations):
        try:
            return convert(value, annotation)
        except ValueError:
            continue
    raise ValueError(f"{value!r} is none of {', '.join(map(_name_of, annotations))}")


def _collection(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if kind is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} is no mapping")
        keys, values = arguments or (Any, Any)
        return {convert(name, keys): convert(each, values) for name, each in value.items()}
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is no list")
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ValueError(f"{value!r} has not {len(arguments)} values")
        return tuple(convert(each, annotation) for each, annotation in zip(value, arguments, strict=True))
    return kind(convert(each, arguments[0] if arguments else Any) for each in value)


def _of_class(value: Any, annotation: type) -> Any:
    if issubclass(annotation, Path):
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no path")
        return annotation(value)
    if issubclass(annotation, enum.Enum):
        for member in annotation:
            if value in (member.value, member.name):
                return member
        raise ValueError(f"{value!r} is none of {', '.join(each.name for each in annotation)}")
    if dataclasses.is_dataclass(annotation):
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} is no mapping")
        fields = _dataclass_fields(annotation)
        unknown = [name for name in value if name not in fields]
        if unknown:
            raise ValueError(f"{unknown[0]} is unknown; {annotation.__name__} has {', '.join(fields)}")
        return annotation(**{name: convert(each, fields[name].annotation) for name, each in value.items()})
    return value


def _is_plain(kind: type) -> bool:
    """Whether a single parameter of this type is a value, and not an object that holds the parameters."""
    return issubclass(kind, (bool, int, float, str, bytes, list, tuple, set, dict, Path, enum.Enum, type(None)))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)


def _name_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _with_article(name: str) -> str:
    return {"int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false"}[name]


def project_first(folder: str, root: str | None = None) -> None:
    """Let imports find the modules of the project in `folder` before all others, as `python train.py` does there.

    `root`: the project from which it was frozen. What leads into that, as an editable installation does, leads into
    `folder` instead.
    """
    # `python -m` has put the current folder first, unless the user has forbidden it.
    if not sys.flags.safe_path:
        sys.path.pop(0)
    if root:
        sys.path[:] = [_frozen(entry, folder, root) for entry in sys.path]
    sys.path.insert(0, folder)


def _frozen(entry: str, folder: str, root: str) -> str:
    path = Path(entry)
    is_live = path.is_relative_to(root) and not path.is_relative_to(folder) and not is_installed(path)
    frozen = Path(folder, path.relative_to(root)) if is_live else path
    return str(frozen) if frozen.is_dir() else entry


def load_function(text: str, folder: str | None = None, root: str | None = None) -> Callable[..., Any]:
    """The function `module:name`. Raises ConfigError if there is none, or if its module is the one of the project
    `root`, which may be edited, and not the frozen one in `folder`; what the module raises at import passes.
    """
    module, _, name = text.partition(":")
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(f"program.function: there is no module {module} in the project") from None
        raise
    found: Any = sys.modules[module]
    # A module that is built into Python has none.
    file = os.path.realpath(getattr(found, "__file__", None) or "")
    frozen, live = (f"{os.path.realpath(each or '')}/" for each in (folder, root))
    if root and file.startswith(live) and not file.startswith(frozen) and not is_installed(Path(file)):
        raise ConfigError(
            f"program.function: {module} comes from {file}, which is not frozen with the sweep; remove the editable "
            "installation of the project, or name the module by its path from the project's folder"
        )
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        functions = [
            each
            for each, value in vars(sys.modules[module]).items()
            if inspect.isfunction(value) and value.__module__ == module and not each.startswith("_")
            if (parameters := list(inspect.signature(value).parameters)) and parameters[0] == "run"
        ]
        raise ConfigError(
            f"program.function: {module} has no `{name}`; functions that take a run: {', '.join(functions) or 'none'}"
        )
    return typing.cast("Callable[..., Any]", found)
