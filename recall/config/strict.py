"""Provides the base of all settings that users write: `Strict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """Form the base of frozen settings objects that refuse unknown keys.

    Attributes:
      short_form: the field that a value alone stands for: of a fusion `kind`, as `fusion: lmf` is short for
        `fusion: {kind: lmf}`; empty where a section has no short form.
      list_form: the field that a list alone stands for, likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    short_form: ClassVar[str] = ""
    list_form: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        if cls.short_form and isinstance(values, str | int | float):
            values = {cls.short_form: values}
        elif cls.list_form and isinstance(values, list | tuple):
            values = {cls.list_form: values}
        for key, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(key)
            if isinstance(value, bool) and field and field.annotation is not bool:
                raise ValueError(f"{key} cannot be {str(value).lower()}; give the value that the key describes")
        return values
