"""How a stage declares its settings: strict, frozen, and each one marked as identity or execution.

*Identity* is what changes the result; it enters the stage's key. *Execution* only changes how the result is computed
(device, micro-batch, paths, memory fractions) and does not. A field without a mark is an error when the class is
defined, so nobody can add a setting without deciding which it is.
"""

import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined


def identity(default: Any = PydanticUndefined, **options: Any) -> Any:
    """A setting that changes the result and therefore the stage's key."""
    return Field(default, json_schema_extra={"role": "identity"}, **options)


def identity_where_set(default: Any, **options: Any) -> Any:
    """A setting that changes the result where it is not the default, and enters the key only there: what it was added
    to keeps the keys it had."""
    return Field(default, json_schema_extra={"role": "identity", "where_set": True}, **options)


def execution(default: Any = PydanticUndefined, **options: Any) -> Any:
    """A setting that only changes how the result is computed; it never enters a key."""
    return Field(default, json_schema_extra={"role": "execution"}, **options)


def _iso_date(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date, such as 2025-01-31 or 2025-01-31T12:00:00") from error
    return text


TemplateDate = Annotated[str, AfterValidator(_iso_date)] | None
"""A date, or date and time, in ISO 8601: `2025-01-31`, `2025-01-31T12:00:00`."""


class StageSettings(BaseModel):
    """Base of every settings class. Strict types, unknown keys refused, immutable, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in cls.model_fields:
            if role_of(cls, name) is None:
                raise TypeError(f"{cls.__name__}.{name}: declare it with identity(...) or execution(...)")

    def identity_settings(self) -> dict[str, Any]:
        """The settings that enter the key, as plain JSON values; nested settings keep only their own identity part."""
        return {
            name: _identity_value(getattr(self, name))
            for name in type(self).model_fields
            if role_of(type(self), name) == "identity" and not self._is_left_out(name)
        }

    def _is_left_out(self, name: str) -> bool:
        field = type(self).model_fields[name]
        extra = field.json_schema_extra
        return isinstance(extra, dict) and "where_set" in extra and getattr(self, name) == field.default


def role_of(settings: type[BaseModel], field: str) -> str | None:
    """`identity`, `execution` or None for a field of a settings class."""
    extra = settings.model_fields[field].json_schema_extra
    role = extra.get("role") if isinstance(extra, dict) else None
    return role if isinstance(role, str) else None


def _identity_value(value: Any) -> Any:
    if isinstance(value, StageSettings):
        return value.identity_settings()
    if isinstance(value, list):
        return [_identity_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _identity_value(item) for key, item in value.items()}
    return value
