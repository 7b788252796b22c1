"""The base of every section of a configuration or profile, and the types that sections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are refused, values are not converted, and it is immutable."""

    # strict: without it, pydantic takes "yes" for true and "3" for 3, and a typo goes unnoticed.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuples(value: Any) -> Any:
    """The value with tuples for its lists: strict pydantic accepts no list for a tuple field, and YAML and JSON have no
    tuples.
    """
    if isinstance(value, Mapping):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def as_lists(value: Any) -> Any:
    """The value with lists for its tuples, as YAML and JSON write them."""
    if isinstance(value, Mapping):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value
