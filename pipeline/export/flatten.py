"""Settings for trackers: those that enter keys, one name a value, and without passwords."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pipeline.config.schema import PipelineConfig
from stages.harness.settings import role_of

T = TypeVar("T")
_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]*:[^/@\s'\"]*(?=@)")
"""`name:password` of an address."""


def flatten(settings: Any, prefix: str = "") -> dict[str, str]:
    """`{"sft": {"learning_rate": 0.002}}` as `{"sft.learning_rate": "0.002"}`.

    A list of mappings has one name for each (`benchmarks.0.name`), any other list is one JSON text. Texts stay as they
    are; other values are JSON: `null`, `true`, `0.002`. An empty mapping is left out.
    """
    if isinstance(settings, dict):
        below = [flatten(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in settings.items()]
    elif isinstance(settings, list) and settings and all(isinstance(item, dict) for item in settings):
        below = [flatten(item, f"{prefix}.{index}") for index, item in enumerate(settings)]
    else:
        return {prefix: settings if isinstance(settings, str) else json.dumps(settings, ensure_ascii=False)}
    return {name: text for part in below for name, text in part.items()}


def identity_of(config: dict[str, Any]) -> dict[str, Any]:
    """The identity settings of a config that this version cannot validate: what is known to be execution is left out,
    at the top and in each section."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        field = PipelineConfig.model_fields.get(name)
        if field is not None and role_of(PipelineConfig, name) == "execution":
            continue
        sections = _classes(field.annotation) if field is not None else []
        if isinstance(value, dict) and sections:
            value = {
                key: inner
                for key, inner in value.items()
                if not all(key in kind.model_fields and role_of(kind, key) == "execution" for kind in sections)
            }
        kept[name] = value
    return kept


def _classes(annotation: Any) -> list[Any]:
    """The settings classes in an annotation such as `SftSettings | None`."""
    return [kind for kind in (annotation, *getattr(annotation, "__args__", ())) if hasattr(kind, "model_fields")]


def without_secrets(value: T) -> T:
    """The value with `***` for the user and password of every address in it."""
    if isinstance(value, str):
        return _USERINFO.sub("***", value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]  # type: ignore[return-value]
    return value
