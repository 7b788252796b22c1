"""Checks the content of a file against a schema, and says in one message what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from relay.errors import RunError


class FileSchema:
    """The schema of one kind of file, and what a user can do when the file is damaged."""

    def __init__(self, schema: Any, advice: str, config: ConfigDict | None = None) -> None:
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(schema, config=config)
        self.advice = advice

    def __call__(self, path: Path, text: bytes, line: int | None = None) -> dict[str, Any]:
        """Parse and validate `text`, which is `line` of the file. Raises RunError."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise self._refusal(path if line is None else f"{path}: line {line}", error) from None

    def build(self) -> None:
        """Build the validator now, so that forks of this process have it."""
        self._adapter.rebuild()

    def check(self, path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
        """Validate an object that was parsed already. Raises RunError."""
        try:
            return self._adapter.validate_python(dict(content))
        except ValidationError as error:
            raise self._refusal(path, error) from None

    def _refusal(self, where: object, error: ValidationError) -> RunError:
        first = error.errors(include_url=False)[0]
        parts = [str(part) for part in first["loc"]]
        if first["type"] == "json_invalid":
            return RunError(f"{where}: is not JSON; {self.advice}")
        if parts and parts[-1] in ("float", "constrained-int", "constrained-float"):
            first["msg"] = "must be a number or null"
            parts.pop()
        elif first["type"] == "string_pattern_mismatch":
            first["msg"] = "must be a name"
        key = ".".join(parts)
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        given = "" if first["type"] in ("missing", "value_error") else f", and is {_shown(first['input'])}"
        return RunError(f"{where}: {f'{key}: ' if key else ''}{message}{given}; {self.advice}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
