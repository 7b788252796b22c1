"""The base of every section of a configuration or profile, and the types that sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are refused, values are not converted, and it is immutable."""

    # strict: without it, pydantic takes "yes" for true and "3" for 3, and a typo goes unnoticed.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
