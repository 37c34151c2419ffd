"""The base of every configuration value: closed, frozen and strict."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Closed(BaseModel):
    """Unknown keys are faults, values do not change, and types are strict (`"8"` is not 8)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _integer_as_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


INTEGER_AS_FLOAT = BeforeValidator(_integer_as_float)
Real = Annotated[float, INTEGER_AS_FLOAT]
"""A float that may be written without a decimal point, although types are strict."""
